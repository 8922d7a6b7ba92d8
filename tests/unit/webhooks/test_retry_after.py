"""``Retry-After`` is read in both its forms, capped, and never trusted further."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.webhooks.delivering import seconds_of

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("3600", 3600.0),
        ("999999", 3600.0),
        ("Fri, 20 Nov 2026 09:01:30 GMT", 90.0),
        ("Fri, 20 Nov 2026 08:00:00 GMT", 0.0),
        ("Fri, 20 Nov 2099 09:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 400, None),
        ("Fri, 20 Nov 2026", None),
        ("Fri, 99 Nov 2026 09:00:00 GMT", None),
        ("20 Nov 2026 09:00:00 -0000", None),
    ],
)
def test_a_wait_is_read(value: str, seconds: float | None) -> None:
    assert seconds_of(value, NOW) == seconds
