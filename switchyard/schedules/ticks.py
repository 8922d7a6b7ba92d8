"""Due minutes of cron expressions. All times are in UTC, so no hour is skipped or repeated.

periodiq parses the expressions and matches single minutes. Its search for the next minute is not used: it misses
some, and it knows Sunday as day 7 only, so that ``0`` and ``sun`` never match.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periodiq import CronSpec

# A 29 February is at most eight years away.
HORIZON_DAYS = 8 * 366
SUNDAY_AS_ZERO, SUNDAY_AS_SEVEN = 0, 7


def normalised(spec: CronSpec) -> CronSpec:
    """Return the expression with Sunday as both 0 and 7, so that ``0`` and ``sun`` match."""
    if SUNDAY_AS_ZERO in spec.dow and SUNDAY_AS_SEVEN not in spec.dow:
        return spec.replace(dow=[*spec.dow, SUNDAY_AS_SEVEN])
    return spec


def ticks_back(spec: CronSpec, after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
    """Yield the due minutes after ``after`` up to and including ``until``, newest first."""
    day = until.date()
    while day >= after.date():
        for tick in reversed(_ticks_of(spec, day)):
            if after < tick <= until:
                yield tick
        day -= datetime.timedelta(days=1)


def next_tick(spec: CronSpec, after: datetime.datetime) -> datetime.datetime | None:
    """Return the first due minute after ``after``, or ``None`` if there is none within eight years."""
    for days in range(HORIZON_DAYS):
        for tick in _ticks_of(spec, after.date() + datetime.timedelta(days=days)):
            if tick > after:
                return tick
    return None


def minute_of(moment: datetime.datetime) -> datetime.datetime:
    """Return the start of a moment's minute, in UTC."""
    return moment.astimezone(datetime.UTC).replace(second=0, microsecond=0)


def _ticks_of(spec: CronSpec, day: datetime.date) -> list[datetime.datetime]:
    clocks = [datetime.time(h, m) for h in spec.hour if h < 24 for m in spec.minute if m < 60]
    minutes = [datetime.datetime.combine(day, clock, tzinfo=datetime.UTC) for clock in clocks]
    # The day matches or not, whatever the minute.
    return minutes if minutes and spec.validate(minutes[0]) else []
