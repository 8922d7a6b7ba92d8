"""Ends of a pause as operators write them, and times of records as pages show them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import ActRefused

LONGEST: Final = timedelta(days=365)
_SPAN = re.compile(r"(\d{1,7})\s*(s|m|min|h|d)")
_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def as_time(field: str) -> Any:
    """Return a property: a field in ms since the epoch as a time in UTC, ``None`` where the field is ``None``."""

    def time(instance: object) -> datetime | None:
        at = getattr(instance, field)
        return None if at is None else datetime_of(at)

    return property(time)


def unusable_end(text: str, why: str) -> ActRefused:
    """Return the error that the end of a pause is no time in the future."""
    return ActRefused(f"until {text!r}", f"{why}; write a span (30m, 2h), a time of day in UTC (14:00) or ISO 8601")


def parse_until(text: str, *, now: datetime) -> datetime:
    """Return the time that an operator means: ``30m``, ``2h``, ``14:00`` (the next one, UTC), or ISO 8601.

    A time without a zone is UTC.

    Raises:
        ActRefused: it is none of these, over, or more than a year away.
    """
    text = text.strip()
    moment = _parse(text, now)
    if moment <= now:
        raise unusable_end(text, "it is over")
    if moment - now > LONGEST:
        raise unusable_end(text, "it is more than a year away")
    return moment


def _parse(text: str, now: datetime) -> datetime:
    if span := _SPAN.fullmatch(text):
        return now + min(timedelta(**{_UNITS[span[2]]: int(span[1])}), 2 * LONGEST)
    if of_day := _OF_DAY.fullmatch(text):
        today = now.astimezone(UTC).replace(hour=int(of_day[1]), minute=int(of_day[2]), second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise unusable_end(text, "it is no time") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
