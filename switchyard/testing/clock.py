"""Time that a test moves on: of the whole process, so that delays, rate limits and the actors' own code agree."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from switchyard.middleware.envelope import FixedSender, sent_by
from switchyard.schedules.registry import schedules


class Clock:
    """The clock of a test. It goes on by itself, and is moved on by :meth:`advance`."""

    def __init__(self) -> None:
        self._travel: Any = None
        self._coordinates: Any = None

    def advance(self, seconds: float) -> None:
        """Move the time of this process on.

        Raises:
            RuntimeError: it is not installed.
        """
        if self._coordinates is None:
            try:
                import time_machine
            except ModuleNotFoundError:
                remedy = "install it, or Switchyard with its extra testing"
                raise RuntimeError(f"advance() needs time-machine: {remedy}") from None
            self._travel = time_machine.travel(datetime.now(UTC), tick=True)
            self._coordinates = self._travel.start()
        self._coordinates.shift(timedelta(seconds=seconds))

    def stop(self) -> None:
        """Return to the real time."""
        if self._travel is not None:
            self._travel.stop()
            self._travel = self._coordinates = None


def seconds_of(moved: Any) -> float:
    """Return how far the time is moved on, in seconds.

    Raises:
        TypeError: it is neither a number nor a ``timedelta``. ValueError: it is below 0, or not finite.
    """
    if isinstance(moved, timedelta):
        moved = moved.total_seconds()
    if type(moved) not in (int, float):
        raise TypeError(f"advance({moved!r:.100}): write seconds as a number, or a timedelta")
    if not 0 <= moved < math.inf:
        raise ValueError(f"advance({moved!r}): time only moves on, write 0 or more")
    return float(moved)


def advance_with_ticks(clock: Clock, seconds: float) -> None:
    """Move the time on and send the ticks of periodic actors on the way, each at its minute."""
    now, due = datetime.now(UTC), schedules()
    end = now + timedelta(seconds=seconds)
    after_end = end + timedelta(seconds=1)
    while (tick := min((at for one in due if (at := one.next(now)) is not None), default=after_end)) <= end:
        clock.advance(max((tick - datetime.now(UTC)).total_seconds(), 0))
        for schedule in due:
            if schedule.next(now) == tick:
                with sent_by(FixedSender(schedule=schedule.name)):
                    schedule.actor.broker.enqueue(schedule.actor.message())
        now = tick
    clock.advance(max((end - datetime.now(UTC)).total_seconds(), 0))
