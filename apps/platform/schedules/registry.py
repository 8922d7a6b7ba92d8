"""Which actors are periodic: those declared with ``periodic=cron(…)``."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import dramatiq
from dramatiq.actor import Actor
from dramatiq.broker import Broker
from periodiq import CronSpec

from apps.platform.schedules import ticks

CatchUp = Literal["once", "skip", "all"]
CATCH_UP: tuple[CatchUp, ...] = ("once", "skip", "all")
MOST_AT_ONCE = 100
# A scheduler that takes over sends the tick that came while nobody led; that is no downtime.
GRACE = datetime.timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One periodic actor.

    Args:
        text: The expression as it was written.
        catch_up: What is sent of the ticks that came while no scheduler ran: ``once`` the last of them, ``skip``
            nothing, ``all`` each of the last 100. Option ``catch_up`` of the actor; ``once`` by default.
    """

    actor: Actor[Any, Any]
    spec: CronSpec
    text: str
    catch_up: CatchUp

    @property
    def name(self) -> str:
        """Name of the actor, and of the schedule."""
        return self.actor.actor_name

    def due(self, since: datetime.datetime, now: datetime.datetime) -> list[datetime.datetime]:
        """Return the ticks to send now, oldest first, when all up to ``since`` are done."""
        missed = ticks.ticks_back(self.spec, since, now)
        if self.catch_up == "all":
            return list(itertools.islice(missed, MOST_AT_ONCE))[::-1]
        last = next(missed, None)
        if last is None or (self.catch_up == "skip" and now - last > GRACE):
            return []
        return [last]

    def next(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return when it is due next, or ``None`` if it never is."""
        return ticks.next_tick(self.spec, now)


def schedules(broker: Broker | None = None) -> list[Schedule]:
    """Return the periodic actors of a broker, or of Dramatiq's global one, by name."""
    actors = (broker or dramatiq.get_broker()).actors.values()
    found = [_schedule(actor) for actor in actors if actor.options.get("periodic") is not None]
    return sorted(found, key=lambda schedule: schedule.name)


def _schedule(actor: Actor[Any, Any]) -> Schedule:
    spec = actor.options["periodic"]
    # Anything else is refused by a system check, which wants to name it.
    fixed = ticks.normalised(spec) if isinstance(spec, CronSpec) else spec
    return Schedule(actor, fixed, str(spec), actor.options.get("catch_up", "once"))
