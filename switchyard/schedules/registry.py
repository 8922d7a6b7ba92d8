"""Schedules: when they are due, what a schedule is, and those that actors declare with ``periodic=cron(…)``, checked.

Daylight saving: an expression that names hours (``0 2 * * *``) is due once at each local time: what a change of the
clocks skips at the first minute after it, what they repeat at its first pass. An expression of every hour
(``*/10 * * * *``) follows the clock: it is due in both passes, and not in what is skipped.
"""

from __future__ import annotations

import datetime
import inspect
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import dramatiq
import msgspec
from django.core.checks import CheckMessage, Error
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.console.formatting import whole_duration
from switchyard.middleware.errors import place_of

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


CatchUp = Literal["once", "skip", "all"]
CATCH_UP: tuple[CatchUp, ...] = ("once", "skip", "all")
Overlap = Literal["allow", "skip", "replace"]
OVERLAP: tuple[Overlap, ...] = ("allow", "skip", "replace")
MOST_AT_ONCE = 100
# A new leader sends a tick that fell due during the change of leaders; with ``skip`` too.
GRACE = datetime.timedelta(minutes=1)
LEAST = datetime.timedelta(microseconds=1)
LONGEST_TIMING = 200


class Schedule(msgspec.Struct, frozen=True):
    """A schedule, of a periodic actor or of a stored row, and its name.

    Args:
        catch_up: Ticks to send of those missed while no scheduler ran: ``once`` the last one, ``skip`` none, ``all``
            each of the last 100.
        start, end: No tick is before or after; ``None`` for no bound.
        overlap: Of a tick while the job of the last one has not ended: ``allow`` sends it, ``skip`` does not,
            ``replace`` cancels that job and sends it.
        deadline_s: A tick that a scheduler notices so many seconds late is dropped; ``None`` for no deadline.
    """

    name: str
    actor: Actor[Any, Any]
    trigger: Trigger
    catch_up: CatchUp = "once"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None
    overlap: Overlap = "allow"
    deadline_s: int | None = None
    is_stored: bool = False

    @property
    def timing(self) -> str:
        """Return trigger and bounds as text: progress that was made under another one says nothing of this one."""
        start = f" from {self.start:%Y-%m-%dT%H:%MZ}" if self.start else ""
        end = f" until {self.end:%Y-%m-%dT%H:%MZ}" if self.end else ""
        return f"{self.trigger.text}{start}{end}"[:LONGEST_TIMING]

    def message(self, job_id: str) -> Message[Any]:
        return self.actor.message_with_options(args=self.args, kwargs=self.kwargs).copy(message_id=job_id)

    def due(self, since: datetime.datetime, now: datetime.datetime) -> list[datetime.datetime]:
        """Return the ticks after ``since`` to send now, oldest first."""
        missed = self.back(since, now)
        if self.catch_up == "all":
            return list(itertools.islice(missed, MOST_AT_ONCE))[::-1]
        last = next(missed, None)
        if last is None or (self.catch_up == "skip" and now - last > GRACE):
            return []
        return [last]

    def back(self, after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the ticks after ``after`` up to and including ``until``, newest first."""
        if self.start is not None:
            after = max(after, self.start - LEAST)
        return self.trigger.back(after, until if self.end is None else min(until, self.end))

    def next(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the next tick after ``now``, or ``None`` if there is none within eight years or before the end."""
        tick = self.trigger.next(now if self.start is None else max(now, self.start - LEAST))
        return None if tick is None or (self.end is not None and tick > self.end) else tick


def schedules() -> list[Schedule]:
    """Return the schedules of periodic actors, by name, without those that the system check refuses."""
    found = []
    for actor in periodic_actors():
        spec, zone = actor.options["periodic"], actor.options.get("time_zone", UTC)
        if is_cron(spec) and not zone_fault(zone):
            trigger, catch_up = Cron.of(spec, zone), actor.options.get("catch_up", "once")
            found.append(Schedule(actor.actor_name, actor, trigger, catch_up))
    return sorted(found, key=lambda schedule: schedule.name)


def periodic_actors() -> list[Actor[Any, Any]]:
    return [actor for actor in dramatiq.get_broker().actors.values() if actor.options.get("periodic") is not None]


def is_cron(spec: object) -> bool:
    """Return whether the option ``periodic`` of an actor is what periodiq's ``cron`` makes."""
    # Here, so that only projects with periodic actors load periodiq: it imports pendulum, pdb and Dramatiq's command.
    from periodiq import CronSpec

    return isinstance(spec, CronSpec)


def check_schedules(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse schedules that could never run as declared."""
    found = sorted(periodic_actors(), key=lambda actor: actor.actor_name)
    return [error for actor in found for error in errors_of(actor)]


def errors_of(actor: Actor[Any, Any]) -> list[CheckMessage]:
    subject = f"actor {actor.actor_name} ({place_of(actor.fn)})"
    return [Error(fact, hint, subject, "switchyard.E050") for fact, hint in _faults(actor)]


def _faults(actor: Actor[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield facts with remedies."""
    spec, zone = actor.options["periodic"], actor.options.get("time_zone", UTC)
    if not is_cron(spec):
        yield f"periodic is a {type(spec).__name__}", "use periodic=cron('0 2 * * *') with periodiq's cron"
        return
    if wrong := zone_fault(zone):
        fact, _, remedy = wrong.partition("; ")
        yield fact, remedy
    elif fault := cron_fault(Cron.of(spec, zone)):
        yield fault
    if needed := _required(actor):
        fact = f"it is periodic and needs {', '.join(needed)}, but a tick passes no arguments"
        yield fact, "give each parameter a default, or let a periodic actor without parameters send it"
    if (catch_up := actor.options.get("catch_up", "once")) not in CATCH_UP:
        yield f"catch_up is {catch_up!r}", f"use one of {', '.join(CATCH_UP)}"


def _required(actor: Actor[Any, Any]) -> list[str]:
    parameters = inspect.signature(actor.fn).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]
