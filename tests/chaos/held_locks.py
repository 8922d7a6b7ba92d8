"""Locks under faults: one that a task holds all along, and one that threads hold in turn, with their times."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import dramatiq
import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.limit_counts import TaskLock
from switchyard.limits import lock
from switchyard.middleware.errors import LockTaken
from switchyard.wiring import build_yard
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

HELD, BUSY = "held", "busy"
THREADS = 4
# A server that is replaced may have forgotten this much, see docs/how-to/limit-what-runs-at-once.md.
FORGOTTEN_S = 1.0


class Holding(NamedTuple):
    """A time in which a thread was in the block of the lock, by the clock of this machine."""

    began_s: float
    ended_s: float
    number: int


class HeldLocks:
    """The lock :data:`HELD`, which a task holds, and :data:`BUSY`, which threads hold in turn."""

    def __init__(self, broker: RedisBroker) -> None:
        self.broker = broker
        self.holdings: list[Holding] = []
        self.held: list[TaskLock] = []
        self.let_go, self._over = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._hold_in_turn, daemon=True) for _ in range(THREADS)]
        hold = dramatiq.actor(actor_name="hold", queue_name="work")(self._hold)
        hold.send()

    def _hold(self) -> None:
        with lock(HELD) as held:
            self.held.append(held)
            self.let_go.wait(120)

    def _hold_in_turn(self) -> None:
        while not self._over.is_set():
            try:
                with lock(BUSY, wait_s=60, expiry_s=2) as held:
                    began_s = time.monotonic()
                    self._over.wait(0.002)
                    self.holdings.append(Holding(began_s, time.monotonic(), held.number))
            except (BrokerUnavailable, LockTaken):
                continue

    def wait_for_more(self, count: int = 50) -> None:
        before = len(self.holdings)
        wait_for(lambda: len(self.holdings) >= before + count and self.held)

    def check_task(self) -> None:
        """Check that the task has its lock still, renewed by now, and that the next holder's number is greater."""
        [held] = self.held
        key = self.broker.keys.task_lock(HELD)[0]
        # Each beside the one before it: the first may be read right after a renewal, and be the greatest that is seen.
        left_ms = [self.broker.calls.command("PTTL", key)]

        def is_renewed() -> bool:
            left_ms.append(self.broker.calls.command("PTTL", key))
            return left_ms[-1] > left_ms[-2]

        wait_for(is_renewed, what="the worker renews the lock")
        with pytest.raises(LockTaken), lock(HELD):
            pass
        assert not held.lost
        self.let_go.set()
        with lock(HELD, wait_s=60) as after:
            assert after.number > held.number

    def check_turns(self, *replaced_s: float) -> None:
        """Check that one thread at a time held the lock, but for those whose lock a replaced server has forgotten."""
        holdings = sorted(self.holdings)
        numbers = [holding.number for holding in holdings]
        assert numbers == sorted(set(numbers)), "numbers that do not grow"
        both = [(one, two) for one, two in pairwise(holdings) if two.began_s < one.ended_s]
        early = [pair for pair in both if not any(0 <= at - pair[0].began_s <= FORGOTTEN_S for at in replaced_s)]
        print(f"{len(holdings)} holdings, {len(both)} beside one that a server forgot")
        assert early == [], "two holders at once"

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.let_go.set()
            self._over.set()
            for thread in self._threads:
                thread.join(60)


@contextmanager
def held_locks(url: str, run_worker: Callable[..., Any]) -> Iterator[HeldLocks]:
    broker = build_yard(small_yard(soft_limit_ms=120_000), connect(url), Keys("locks"))
    with the_global_broker(broker), run_worker(broker=broker):
        found = HeldLocks(broker)
        with found.in_turn():
            yield found
