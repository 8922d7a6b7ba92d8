"""The filter of letters refuses what a database cannot compare, instead of failing at it."""

from __future__ import annotations

import pytest

from switchyard.dead_letters import bulk_moves


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({"fingerprint": "f\0"}, "fingerprint: 'f\\x00' has a NUL character"),
        ({"search": "\0"}, "search: '\\x00' has a NUL character"),
        ({"search": "a " * 51}, "search: more than 50 words"),
        ({"died_since": "0001-01-01T00:00:00+23:59"}, "died_since: '0001-01-01T00:00:00+23:59' is no time"),
        ({"died_until": "9999-12-31T23:59:59-23:59"}, "died_until: '9999-12-31T23:59:59-23:59' is no time"),
    ],
)
def test_value_that_cannot_be_compared_is_refused(filter: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        bulk_moves.check(filter)

    assert words in str(refused.value)
    assert bulk_moves.of_list(filter) is None


@pytest.mark.django_db
def test_most_words_are_one_expression_that_the_database_takes() -> None:
    wanted = bulk_moves.check({"search": "a " * bulk_moves.MOST_WORDS})

    assert bulk_moves.matching(wanted).count() == 0
