from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchyard.broker.errors import ActRefused
from switchyard.console.formatting import parse_until

NOW = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", "2026-11-21T13:00:30+00:00"),
        ("30m", "2026-11-21T13:30:00+00:00"),
        ("30 min", "2026-11-21T13:30:00+00:00"),
        ("2h", "2026-11-21T15:00:00+00:00"),
        ("3d", "2026-11-24T13:00:00+00:00"),
        ("14:00", "2026-11-21T14:00:00+00:00"),
        ("13:00", "2026-11-22T13:00:00+00:00"),
        ("2026-11-21T14:00", "2026-11-21T14:00:00+00:00"),
        ("2026-11-21T16:00+02:00", "2026-11-21T16:00:00+02:00"),
    ],
)
def test_spans_times_of_day_and_iso_times_are_read(text: str, expected: str) -> None:
    assert parse_until(text, now=NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["", "soon", "0s", "13", "24:00", "366d", "9999999d", "2026-11-21T12:59"])
def test_other_texts_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ActRefused, match="write a span"):
        parse_until(text, now=NOW)
