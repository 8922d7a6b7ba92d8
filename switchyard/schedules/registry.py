"""Registry of schedules: what a schedule is, and those that periodic actors declare with ``periodic=cron(…)``."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import dramatiq
import msgspec
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.schedules.triggers import UTC, Cron, Trigger, zone_fault

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
