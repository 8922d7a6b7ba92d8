"""Producers that note what became of each enqueue, and the actor that notes what became of each job."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dramatiq
from dramatiq import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from tests.chaos.ledger import Entry, Ledger
from tests.waiting import wait_for
from tests.ways import ASYNC_WAYS, WAYS

QUEUE = "work"
JOBS_THAT_FAIL_ONCE = "7"  # those whose name ends so: every tenth job goes through the retry lane
JOBS_THAT_ARE_DELAYED = "3"  # and every tenth is due a little later
DELAY_MS = 50
FIRST = "first"
YARD = Yard(
    queues=(Queue(QUEUE, 1_000, 60_000, 90_000, retry=RetryPolicy(max_retries=20, base_ms=5, cap_ms=50)),),
    pools=(
        Pool("work", "threads", (QUEUE,), processes=2, slots=4),
        Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True),
    ),
)


class FailsOnce(Exception):
    """Exception raised by a job that must fail on its first attempt."""


def let_pass(seconds: float) -> None:
    threading.Event().wait(seconds)


def declare_job(broker: Broker, ledger: Ledger, queue: str = QUEUE) -> Actor[Any, Any]:
    """Return an actor that notes its start, takes as long as it is told, and notes its end.

    Where no pool is of greenlets, an async one is declared as well.

    Jobs of :data:`JOBS_THAT_FAIL_ONCE` fail in between, the first time.
    """

    @dramatiq.actor(broker=broker, queue_name=queue, actor_name=actor_of(queue))
    def chaos_job(job: str, ms: int = 0, how: str = "sleep") -> None:
        run(ledger, job, ms, how)

    if not hasattr(broker, "switchyard") or any(pool.kind == "gevent" for pool in facilities(broker).yard.pools):
        return chaos_job

    @dramatiq.actor(broker=broker, queue_name=queue, actor_name=f"{actor_of(queue)}_async")
    async def async_job(job: str, ms: int, how: str) -> None:
        ledger.note("started", job)
        await ASYNC_WAYS[how](ms / 1000)
        ledger.note("completed", job)

    return chaos_job


def actor_of(queue: str) -> str:
    return "chaos_job" if queue == QUEUE else f"{queue}_job"


def run(ledger: Ledger, job: str, ms: int, how: str) -> None:
    """Do the actor's work.

    Args:
        how: Name of one of :mod:`tests.ways`; or ``first``: sleep the first time only. What ran when its leases lapsed
            runs alone afterwards, one job after the other: long ones would take their sum.
    """
    ledger.note("started", job)
    if how != FIRST:
        WAYS[how](ms / 1000)
    elif len(ledger.of("started", job)) == 1:
        WAYS["sleep"](ms / 1000)
    current = CurrentMessage.get_current_message()
    if job.endswith(JOBS_THAT_FAIL_ONCE) and current is not None and not current.options.get("attempts"):
        raise FailsOnce(job)
    ledger.note("completed", job)


def enqueue(
    broker: Broker, ledger: Ledger, job: str, ms: int = 0, how: str = "sleep", *, delay_ms: int | None = None,
    queue: str = QUEUE, **options: Any,
) -> bool:  # fmt: skip
    """Enqueue a job once, note what came of it, and return whether it was accepted."""
    actor = f"{actor_of(queue)}_async" if how in ASYNC_WAYS else actor_of(queue)
    ledger.note("attempted", job)
    try:
        broker.enqueue(Message(queue, actor, (job, ms, how), {}, options, job), delay=delay_ms)
    except BrokerUnavailable:
        ledger.note("refused", job)
        return False
    ledger.note("accepted", job)
    return True


class Producers:
    """Threads that enqueue at a steady pace until they are told to stop.

    Args:
        per_s: Jobs a second, all threads together; 0 for as many as go.
        plain: No job fails, and none is delayed.
        first: Number in the name of the first job.
        caught_up_s: Arrears that are caught up, so that single slow sends do not lower the rate; those of an outage
            that is longer are not.
    """

    def __init__(
        self, broker: Broker, ledger: Ledger, *, per_s: float = 200, threads: int = 2, ms: int = 5, plain: bool = False,
        first: int = 0, caught_up_s: float = 0.0,
    ) -> None:  # fmt: skip
        self._broker, self._ledger, self._ms, self._caught_up_s = broker, ledger, ms, caught_up_s
        self._end = "." if plain else ""
        self._pause_s = threads / per_s if per_s else 0.0
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._numbers = itertools.count(first)
        self._threads = [threading.Thread(target=self._produce, daemon=True) for _ in range(threads)]
        self.accepted_count = 0
        self.refused_after_s: list[float] = []  # how long each one that was not accepted took

    @property
    def refused_count(self) -> int:
        return len(self.refused_after_s)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Stop after what is being enqueued.

        Raises:
            AssertionError: an enqueue did not end.
        """
        self._stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in self._threads), f"an enqueue takes more than {timeout_s} s"

    def finish(self, more: int = 60) -> None:
        self.wait_for_accepted(more)
        self.stop()
        wait_until_drained(self._broker)

    def wait_for_accepted(self, more: int, timeout_s: float = 60.0) -> None:
        enough = self.accepted_count + more
        wait_for(lambda: self.accepted_count >= enough, timeout_s, what=f"{more} more jobs accepted")

    def wait_for_refused(self, more: int, timeout_s: float = 60.0) -> None:
        enough = self.refused_count + more
        wait_for(lambda: self.refused_count >= enough, timeout_s, what=f"{more} more jobs refused")

    def _produce(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(due_s - time.monotonic(), 0)):
            started_s = time.monotonic()
            # Sends that an outage delayed are not caught up.
            due_s = max(due_s + self._pause_s, started_s - self._caught_up_s)
            job = f"job-{next(self._numbers):06d}{self._end}"
            delay_ms = DELAY_MS if job.endswith(JOBS_THAT_ARE_DELAYED) else None
            accepted = enqueue(self._broker, self._ledger, job, self._ms, delay_ms=delay_ms)
            with self._counting:
                self.accepted_count += accepted
                if not accepted:
                    self.refused_after_s.append(time.monotonic() - started_s)


@contextlib.contextmanager
def load(broker: Broker, ledger: Ledger, **options: Any) -> Iterator[Producers]:
    """Keep a broker under load for the block; the options are those of :class:`Producers`."""
    producers = Producers(broker, ledger, **options)
    producers.start()
    try:
        yield producers
    finally:
        producers.stop()


def offered_per_s(
    entries: Iterable[Entry], since_s: float, until_s: float, away: Sequence[tuple[float, float]] = ()
) -> float:
    """Return how many jobs a second producers tried to enqueue while the server took them.

    Args:
        entries: Of a ledger.
        since_s, until_s: Monotonic times of the load.
        away: When the server took none: since when, until when. Neither that time counts, nor what was tried in it.
    """
    without = [(max(left_s, since_s), min(back_s, until_s)) for left_s, back_s in away]
    tried = [entry.at_s for entry in entries if entry.phase == "attempted" and since_s <= entry.at_s < until_s]
    counted = sum(1 for at_s in tried if not any(left_s <= at_s < back_s for left_s, back_s in without))
    return counted / (until_s - since_s - sum(back_s - left_s for left_s, back_s in without))


def work_left(broker: Broker) -> list[int]:
    """Return how many messages wait, are delayed, run, are to be retried or to run alone, in each lane."""
    found = [facilities(broker).transport.stats(queue.name) for queue in facilities(broker).yard.queues]
    lanes = [lane for stats in found for lane in (stats.live, stats.retry)]
    return [count for lane in lanes for count in (lane.waiting, lane.scheduled, lane.running)]


def wait_until_drained(broker: Broker, timeout_s: float = 60.0) -> None:
    """Wait until a broker has nothing left to do.

    Args:
        timeout_s: Longest time without progress: how long all of it takes depends on what else the machine does.

    Raises:
        AssertionError: nothing changed for that long.
    """
    last, changed_s = list[int](), time.monotonic()
    while True:
        with contextlib.suppress(BrokerError):  # the server may still be away
            left = work_left(broker)
            if not any(left):
                return
            if left != last:
                last, changed_s = left, time.monotonic()
        assert time.monotonic() - changed_s < timeout_s, f"not drained, no progress for {timeout_s} s; left: {last}"
        let_pass(0.05)
