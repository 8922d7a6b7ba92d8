"""Calendar months, written ``YYYY-MM``."""

import datetime
import re

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)


def first_day(month: str) -> datetime.date:
    """Return the first day of a month.

    Raises:
        ValueError: ``month`` is not written ``YYYY-MM``, or does not exist.
    """
    found = _MONTH.fullmatch(month)
    if found is None or found[1] == "0000":
        raise ValueError(f"month {month!r}: is not a month; write it as YYYY-MM, for example 2026-10")
    return datetime.date(int(found[1]), int(found[2]), 1)


def bounds(month: str) -> tuple[datetime.date, datetime.date]:
    """Return a month's first day and the first day after it.

    Raises:
        ValueError: as :func:`first_day`, and for December 9999, which no day follows.
    """
    first = first_day(month)
    if (first.year, first.month) == (datetime.MAXYEAR, 12):
        raise ValueError(f"month {month!r}: no day follows it; use an earlier month")
    return first, later(first, 1)


def later(first: datetime.date, months: int) -> datetime.date:
    """Return the first day of the month that lies ``months`` after (or, negative, before) another's."""
    index = first.year * 12 + first.month - 1 + months
    return datetime.date(index // 12, index % 12 + 1, 1)


def midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), tzinfo=datetime.UTC)


def month_of(day: datetime.date) -> str:
    return f"{day.year:04d}-{day.month:02d}"
