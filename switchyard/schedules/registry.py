"""Registry of periodic actors: those declared with ``periodic=cron(…)``."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import dramatiq
import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import Broker

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


CatchUp = Literal["once", "skip", "all"]
CATCH_UP: tuple[CatchUp, ...] = ("once", "skip", "all")
MOST_AT_ONCE = 100
# A new leader sends a tick that fell due during the change of leaders; with ``skip`` too.
GRACE = datetime.timedelta(minutes=1)


class Schedule(msgspec.Struct, frozen=True):
    """Schedule of one periodic actor.

    Args:
        text: The cron expression as declared.
        catch_up: Ticks to send of those missed while no scheduler ran: ``once`` the last one, ``skip`` none, ``all``
            each of the last 100. The actor's option ``catch_up``; ``once`` by default.
    """

    actor: Actor[Any, Any]
    spec: CronSpec
    text: str
    catch_up: CatchUp

    @property
    def name(self) -> str:
        """Return the name of the actor, which is the schedule's name as well."""
        return self.actor.actor_name

    def due(self, since: datetime.datetime, now: datetime.datetime) -> list[datetime.datetime]:
        """Return the ticks after ``since`` to send now, oldest first."""
        missed = ticks_back(self.spec, since, now)
        if self.catch_up == "all":
            return list(itertools.islice(missed, MOST_AT_ONCE))[::-1]
        last = next(missed, None)
        if last is None or (self.catch_up == "skip" and now - last > GRACE):
            return []
        return [last]

    def next(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the next tick after ``now``, or ``None`` if there is none within eight years."""
        return next_tick(self.spec, now)


def schedules(broker: Broker | None = None) -> list[Schedule]:
    """Return the schedules of a broker's periodic actors, sorted by name; by default of Dramatiq's global broker."""
    actors = (broker or dramatiq.get_broker()).actors.values()
    found = [_schedule(actor) for actor in actors if actor.options.get("periodic") is not None]
    return sorted(found, key=lambda schedule: schedule.name)


def is_cron(spec: object) -> bool:
    """Return whether the option ``periodic`` of an actor is what periodiq's ``cron`` makes."""
    # Here, so that only projects with periodic actors load periodiq: it imports pendulum, pdb and Dramatiq's command.
    from periodiq import CronSpec

    return isinstance(spec, CronSpec)


def _schedule(actor: Actor[Any, Any]) -> Schedule:
    spec = actor.options["periodic"]
    # The system check refuses other types and names them.
    minutes = normalised(spec) if is_cron(spec) else spec
    return Schedule(actor, minutes, str(spec), actor.options.get("catch_up", "once"))
