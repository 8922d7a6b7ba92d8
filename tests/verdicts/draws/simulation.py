"""Simulation of a yard's work on a clock of its own: jobs arrive by chance, wait for a slot, run, and end.

It knows nothing of how the yard is judged. Queues are served in order; of what runs the facts are counted as the
children count them.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from switchyard.broker.stores.yard_facts import (
    BUCKET_MS,
    CLASSES,
    DEAD,
    GROWN_BYTES,
    LEAST_MS,
    PROCESSOR_MS,
    RETRIED,
    RUN_MS,
    RUNS,
    SQL_MS,
    SUCCEEDED,
    WAIT_MS,
    WAITS,
    YARD,
    actor_subject,
    dependency_subject,
    queue_subject,
)

BUCKET_S = BUCKET_MS / 1_000
BOUNDS_MS = tuple(LEAST_MS * 2**n for n in range(CLASSES - 1))


@dataclass(frozen=True)
class Work:
    """Behaviour of an actor.

    Args:
        per_s: Jobs that arrive a second, by chance.
        run_ms: Median run, of which ``sql`` and ``processor`` are shares; ``spread`` is that of its logarithm.
        failing: Share that fails, ``error`` is its type and text; ``outage``: by the dependency.
        grown: Bytes that a job leaves in its process.
    """

    queue: str
    per_s: float
    run_ms: float
    sql: float = 0.1
    processor: float = 0.2
    spread: float = 0.4
    failing: float = 0.0
    error: tuple[str, str] = ("ValueError", "an unknown currency")
    outage: bool = False
    grown: int = 0
    dependency: str = ""


@dataclass
class SimulatedJob:
    """A job: seconds of the simulation; ``start`` and ``end`` are infinite for one that never starts."""

    actor: str
    work: Work
    sent: float
    args: tuple[int, ...]
    start: float = float("inf")
    end: float = float("inf")
    failed: bool = False


@dataclass
class Simulation:
    """A yard from second 0 on.

    Args:
        slots: Of each queue.
        stops: Queue -> second from which nothing of it starts.
    """

    draw: random.Random
    slots: Mapping[str, int]
    stops: Mapping[str, float] = field(default_factory=dict)
    jobs: list[SimulatedJob] = field(default_factory=list)

    def arrive(self, actor: str, work: Work, begin: float, until: float) -> None:
        """Have an actor's jobs arrive by chance."""
        at = begin
        while work.per_s > 0 and (at := at + self.draw.expovariate(work.per_s)) < until:
            self.jobs.append(SimulatedJob(actor, work, at, (self.draw.randrange(1, 10_000),)))

    def burst(self, actor: str, work: Work, begin: float, until: float, count: int, *args: int) -> None:
        """Have so many jobs arrive within a time."""
        for _ in range(count):
            self.jobs.append(SimulatedJob(actor, work, self.draw.uniform(begin, until), args))

    def run(self) -> None:
        """Start and end every job, first come, first served."""
        self.jobs.sort(key=lambda job: job.sent)
        free = {queue: [0.0] * count for queue, count in self.slots.items()}
        for job in self.jobs:
            slots = free[job.work.queue]
            start = max(job.sent, slots[0])
            if start >= self.stops.get(job.work.queue, float("inf")):
                continue
            run_s = job.work.run_ms / 1_000 * self.draw.lognormvariate(0, job.work.spread)
            job.start, job.end = start, start + run_s
            job.failed = self.draw.random() < job.work.failing
            heapq.heapreplace(slots, job.end)

    def waiting(self, at: float) -> list[SimulatedJob]:
        return [job for job in self.jobs if job.sent <= at < job.start]

    def running(self, at: float) -> list[SimulatedJob]:
        return [job for job in self.jobs if job.start <= at < job.end]

    def ended(self, since: float, until: float) -> list[SimulatedJob]:
        return [job for job in self.jobs if since < job.end <= until]


class Counted:
    """Counts by bucket and subject, and sends by bucket and actor, as a yard's processes count them."""

    def __init__(self, jobs: Iterable[SimulatedJob], until: float) -> None:
        self.counts: dict[int, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        self.sent: dict[int, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
        self._of: dict[str, str] = {}
        for job in jobs:
            self._of[job.actor] = job.work.queue
            if job.sent <= until:
                self.sent[int(job.sent // BUCKET_S)][job.work.queue, job.actor] += 1
            if job.start <= until:
                self._add(job, job.start, _timed(WAITS, WAIT_MS, (job.start - job.sent) * 1_000))
            if job.end <= until:
                self._add(job, job.end, _ended(job))
                if job.work.dependency and (job.work.outage or not job.failed):
                    of = self.counts[int(job.end // BUCKET_S)][dependency_subject(job.work.dependency)]
                    of[RETRIED if job.failed else SUCCEEDED] += 1

        for bucket in self.counts.values():
            for actor, queue in self._of.items():
                for code, count in bucket.get(actor_subject(actor), {}).items():
                    bucket[queue_subject(queue)][code] += count
                    bucket[YARD][code] += count

    def _add(self, job: SimulatedJob, at: float, counts: Iterator[tuple[int, int]]) -> None:
        of = self.counts[int(at // BUCKET_S)][actor_subject(job.actor)]
        for code, count in counts:
            of[code] += count


def _timed(first: int, total: int, ms: float) -> Iterator[tuple[int, int]]:
    yield first + bisect_left(BOUNDS_MS, ms), 1
    yield total, round(ms)


def _ended(job: SimulatedJob) -> Iterator[tuple[int, int]]:
    run_ms = (job.end - job.start) * 1_000
    yield (DEAD if job.failed and not job.work.outage else RETRIED) if job.failed else SUCCEEDED, 1
    yield from _timed(RUNS, RUN_MS, run_ms)
    yield SQL_MS, round(run_ms * job.work.sql)
    yield PROCESSOR_MS, round(run_ms * job.work.processor)
    yield GROWN_BYTES, job.work.grown
