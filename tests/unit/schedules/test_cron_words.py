from __future__ import annotations

import pytest

from switchyard.schedules.queries import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("40 3 * * *", "every day at 03:40"),
        ("*/5 * * * *", "every 5 min"),
        ("* * * * *", "every minute"),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "every hour at minute 15"),
        ("0 */6 * * *", "every 6 h at minute 0"),
        ("0 6 * * 1", "Mondays at 06:00"),
        ("30 7 * * 1-5", "Mondays to Fridays at 07:30"),
        ("0 6 * * sun", "Sundays at 06:00"),
        ("51 2 20 * *", "on the 20th at 02:51"),
        ("0 0 1 * *", "on the 1st at 00:00"),
        # No short form: no words, rather than wrong ones.
        ("*/7 * * * *", ""),
        ("0 0 1 1 *", ""),
        ("0 3 1 * 1", ""),
        ("0 3 * * 9", ""),
        ("0,30 * * * *", ""),
        ("@daily", ""),
    ],
)
def test_common_expressions_are_said_in_words(text: str, words: str) -> None:
    assert words_of(text) == words
