"""Triggers: when a schedule is due, by a cron expression in a time zone or by a fixed interval of elapsed time.

Daylight saving: an expression that names hours (``0 2 * * *``) is due once at each local time: what a change of the
clocks skips at the first minute after it, what they repeat at its first pass. An expression of every hour
(``*/10 * * * *``) follows the clock: it is due in both passes, and not in what is skipped.
"""

from __future__ import annotations

import datetime
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from switchyard.console.formatting import whole_duration

if TYPE_CHECKING:
    from periodiq import CronSpec

UTC = "UTC"
# A 29 February is at most eight years away.
HORIZON_DAYS = 8 * 366
HOURS = 24
MINUTE, DAY = datetime.timedelta(minutes=1), datetime.timedelta(days=1)
SUNDAY_AS_ZERO, SUNDAY_AS_SEVEN = 0, 7


def minute_of(moment: datetime.datetime) -> datetime.datetime:
    """Return the start of a moment's minute, in UTC."""
    return moment.astimezone(datetime.UTC).replace(second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone, by its IANA name."""

    expression: str
    zone: str
    spec: CronSpec = field(compare=False, repr=False)

    @classmethod
    def of(cls, spec: CronSpec, zone: str = UTC) -> Cron:
        """Return the trigger of an expression as periodiq's ``cron`` reads it."""
        return cls(str(spec), zone, _normalised(spec))

    @property
    def text(self) -> str:
        return self.expression if self.zone == UTC else f"{self.expression} {self.zone}"

    def back(self, after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the due minutes after ``after`` up to and including ``until``, newest first."""
        day = until.date()
        while day >= after.date():
            for tick in reversed(_ticks_of(self, day)):
                if after < tick <= until:
                    yield tick
            day -= DAY

    def next(self, after: datetime.datetime) -> datetime.datetime | None:
        """Return the first due minute after ``after``, or ``None`` if there is none within eight years."""
        for days in range(HORIZON_DAYS):
            for tick in _ticks_of(self, after.date() + DAY * days):
                if tick > after:
                    return tick
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """An interval of whole minutes, in seconds, counted from a whole minute in UTC."""

    every_s: int
    anchor: datetime.datetime
    zone: str = UTC

    @property
    def text(self) -> str:
        return f"every {whole_duration(self.every_s * 1_000)}"

    expression = text

    def back(self, after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
        step = datetime.timedelta(seconds=self.every_s)
        tick = self.anchor + (until - self.anchor) // step * step
        while tick > after and tick >= self.anchor:
            yield tick
            tick -= step

    def next(self, after: datetime.datetime) -> datetime.datetime | None:
        step = datetime.timedelta(seconds=self.every_s)
        return self.anchor + max((after - self.anchor) // step + 1, 0) * step


Trigger = Cron | Every


def zone_fault(name: object) -> str:
    """Return why a name is no time zone, "" if it is one."""
    try:
        if isinstance(name, str) and ZoneInfo(name):
            return ""
    except (KeyError, ValueError, OSError):  # unknown; no name of a file; a folder such as Europe
        pass
    return f"the time zone {name!r:.100} is unknown; write a name of the IANA database, such as Europe/Berlin, or UTC"


def cron_fault(cron: Cron) -> tuple[str, str] | None:
    """Return why an expression is never due as written, with the remedy; ``None`` if it is."""
    text = cron.expression
    if not text.startswith("@") and len(text.split()) != 5:
        fact = f"the schedule {text!r} has {len(text.split())} fields, of which five are read"
        return fact, "write minute, hour, day, month and weekday"
    if cron.next(datetime.datetime.now(datetime.UTC)) is None:
        hint = "minutes are 0 to 59, hours 0 to 23, days 1 to 31, months 1 to 12, weekdays 0 to 7"
        return f"the schedule {text!r} is never due", hint
    return None


def _normalised(spec: CronSpec) -> CronSpec:
    """Return the expression with Sunday as both 0 and 7, so that ``0`` and ``sun`` match."""
    if SUNDAY_AS_ZERO in spec.dow and SUNDAY_AS_SEVEN not in spec.dow:
        return spec.replace(dow=[*spec.dow, SUNDAY_AS_SEVEN])
    return spec


@lru_cache(maxsize=512)
def _ticks_of(cron: Cron, day: datetime.date) -> tuple[datetime.datetime, ...]:
    """Return the due minutes of a day in UTC, in order; the leader asks for the same days every minute."""
    if cron.zone == UTC:
        return tuple(local.replace(tzinfo=datetime.UTC) for local in _local_minutes(cron.spec, day))
    zone, every_hour = ZoneInfo(cron.zone), len([hour for hour in cron.spec.hour if hour < HOURS]) == HOURS
    found = {
        tick
        for local_day in (day - DAY, day, day + DAY)
        for local in _local_minutes(cron.spec, local_day)
        for tick in _instants(local, zone, every_hour=every_hour)
    }
    return tuple(sorted(tick for tick in found if tick.date() == day))


def _local_minutes(spec: CronSpec, day: datetime.date) -> list[datetime.datetime]:
    clocks = [datetime.time(h, m) for h in spec.hour if h < HOURS for m in spec.minute if m < 60]
    minutes = [datetime.datetime.combine(day, clock) for clock in clocks]
    # The day matches or not, whatever the minute.
    return minutes if minutes and spec.validate(minutes[0]) else []


def _instants(local: datetime.datetime, zone: ZoneInfo, *, every_hour: bool) -> tuple[datetime.datetime, ...]:
    """Return the minutes in UTC at which a local time is due."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(datetime.UTC) for fold in (0, 1))
    if first == second:
        return (first,)
    if first < second:  # the clocks show it twice
        return (first, second) if every_hour else (first,)
    # The clocks skip it: ``second`` lies before the change, ``first`` after it.
    return () if every_hour else (_first_after_change(second, first, zone),)


def _first_after_change(before: datetime.datetime, after: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    offset = before.astimezone(zone).utcoffset()
    minutes = range((after - before) // MINUTE)
    is_after = bisect_left(minutes, True, key=lambda m: (before + m * MINUTE).astimezone(zone).utcoffset() != offset)
    return before + is_after * MINUTE
