"""Situations of a yard with parameters drawn at random among clear cases, and what may be named in each.

Clear is a cause that does harm: a load of 1.3 and more, a slowdown of 2.5 times and more, two fifths failing.
The work is simulated on a clock of its own, which knows nothing of how the yard is judged: jobs arrive by chance, wait
for a slot in order, run, and end; of what runs the facts are counted as the children count them.
"""

import heapq
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import actor_subject, dependency_subject, queue_subject

BUCKET_S = yard_facts.BUCKET_MS / 1_000
BOUNDS_MS = tuple(yard_facts.LEAST_MS * 2**n for n in range(yard_facts.CLASSES - 1))


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
                self._add(job, job.start, _timed(yard_facts.WAITS, yard_facts.WAIT_MS, (job.start - job.sent) * 1_000))
            if job.end <= until:
                self._add(job, job.end, _ended(job))
                if job.work.dependency and (job.work.outage or not job.failed):
                    of = self.counts[int(job.end // BUCKET_S)][dependency_subject(job.work.dependency)]
                    of[yard_facts.RETRIED if job.failed else yard_facts.SUCCEEDED] += 1

        for bucket in self.counts.values():
            for actor, queue in self._of.items():
                for code, count in bucket.get(actor_subject(actor), {}).items():
                    bucket[queue_subject(queue)][code] += count
                    bucket[yard_facts.YARD][code] += count

    def _add(self, job: SimulatedJob, at: float, counts: Iterator[tuple[int, int]]) -> None:
        of = self.counts[int(at // BUCKET_S)][actor_subject(job.actor)]
        for code, count in counts:
            of[code] += count


def _timed(first: int, total: int, ms: float) -> Iterator[tuple[int, int]]:
    yield first + bisect_left(BOUNDS_MS, ms), 1
    yield total, round(ms)


def _ended(job: SimulatedJob) -> Iterator[tuple[int, int]]:
    run_ms = (job.end - job.start) * 1_000
    failed = yard_facts.RETRIED if job.work.outage else yard_facts.DEAD
    yield failed if job.failed else yard_facts.SUCCEEDED, 1
    yield from _timed(yard_facts.RUNS, yard_facts.RUN_MS, run_ms)
    yield yard_facts.SQL_MS, round(run_ms * job.work.sql)
    yield yard_facts.PROCESSOR_MS, round(run_ms * job.work.processor)
    yield yard_facts.GROWN_BYTES, job.work.grown


PAST_S = 2_880.0
# Promises of the project's yard and slots of its pools.
SLOTS: Mapping[str, int] = {"urgent": 4, "default": 8, "webhook": 64}


@dataclass
class Drawn:
    """A situation, simulated up to second ``until``; ``cause`` is the one that comes first, "" for none.

    Args:
        about: Queue or actor concerned, of which one must be named with the cause; "" for any.
        paused: Queue that a person paused; ``down`` a queue whose pool is gone.
        held: Actor whose limit holds so many back, each some seconds after the other.
        retrying: Jobs that wait for a retry.
        owner: Owner of the jobs of ``flooding``.
    """

    cause: str
    simulation: Simulation
    until: float
    about: str = ""
    paused: str = ""
    down: str = ""
    held: tuple[str, int, float] = ("", 0, 0.0)
    retrying: int = 0
    owner: str = ""
    flooding: str = ""
    actors: Mapping[str, Work] = field(default_factory=dict)


def usual_actors(draw: random.Random) -> dict[str, Work]:
    """Return actors of a yard at a load of a fifth of its pools."""
    queue_s = {"urgent": draw.uniform(0.8, 1.5), "default": draw.uniform(2.5, 4.0), "webhook": draw.uniform(8, 20)}
    mail_ms, sync_ms, report_ms = draw.uniform(60, 200), draw.uniform(80, 300), draw.uniform(400, 900)
    busy = queue_s["default"] * 1_000
    return {
        "login": Work("urgent", queue_s["urgent"] / draw.uniform(1, 2), draw.uniform(20, 60), sql=0.3),
        "mail": Work("default", 0.5 * busy / mail_ms / 2, mail_ms, sql=0.05),
        "sync": Work("default", 0.3 * busy / sync_ms / 2, sync_ms, sql=draw.uniform(0.1, 0.4)),
        "report": Work("default", 0.2 * busy / report_ms / 2, report_ms, sql=draw.uniform(0.1, 0.4), processor=0.4),
        "deliver": Work("webhook", draw.uniform(3, 8), draw.uniform(80, 400), dependency="webhook", sql=0.02),
    }


class Draw:
    """A draw of one situation: actors as usual until ``PAST_S``, and changed ones from then on."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.before = draw, usual_actors(draw)
        self.after = dict(self.before)
        self.made = Simulation(draw, SLOTS)

    def change(self, actor: str, **changed: object) -> None:
        """Change what an actor does from ``PAST_S`` on."""
        self.after[actor] = replace(self.after[actor], **changed)  # type: ignore[arg-type]

    def many(self, least: float, most: float) -> float:
        """Return a number from a range whose logarithm is drawn."""
        return float(least * (most / least) ** self.draw.random())

    def end(self, cause: str, after_s: float, **more: object) -> Drawn:
        """Simulate until some seconds after the change."""
        until = PAST_S + after_s
        for actor, work in self.before.items():
            self.made.arrive(actor, work, 0.0, PAST_S)
        for actor, work in self.after.items():
            self.made.arrive(actor, work, PAST_S, until)
        self.made.run()
        return Drawn(cause, self.made, until, actors=self.before | self.after, **more)  # type: ignore[arg-type]


Situation = Callable[[Draw], Drawn]


def calm(of: Draw) -> Drawn:
    """A healthy yard, perhaps with a burst that is over."""
    if of.draw.random() < 0.5:
        work = of.before["mail"]
        of.made.burst("mail", work, PAST_S, PAST_S + 5, of.draw.randint(20, 60), 1)
    return of.end("", of.draw.uniform(60, 240))


def nothing_dispatches(of: Draw) -> Drawn:
    queue, after_s = of.draw.choice(("default", "webhook", "urgent")), of.draw.uniform(40, 180)
    of.made.stops = {queue: PAST_S}
    how = of.draw.choice(("paused", "down", "idle"))
    return of.end("nothing_dispatches", after_s, about=queue, **({how: queue} if how != "idle" else {}))


def dependency_down(of: Draw) -> Drawn:
    texts = ("Connection refused", "hook.example.org:443: connection refused; check the endpoint", "timed out")
    error = of.draw.choice(("ConnectionError", "TimeoutError")), of.draw.choice(texts)
    fails_ms = of.draw.choice((of.before["deliver"].run_ms, 30.0, of.many(2_000, 9_000)))
    of.change("deliver", failing=of.draw.uniform(0.6, 1.0), outage=True, error=error, run_ms=fails_ms)
    return of.end("dependency_down", of.draw.uniform(60, 240), about="deliver")


def dependency_slow(of: Draw) -> Drawn:
    of.change("deliver", run_ms=of.before["deliver"].run_ms * of.many(5, 60), sql=0.005, processor=0.01)
    return of.end("dependency_slow", of.draw.uniform(120, 240), about="deliver")


def database_bound(of: Draw) -> Drawn:
    times, bound = of.many(6, 40), of.draw.choice((("mail", "sync", "report"), ("sync", "report", "login")))
    for actor in bound:
        work = of.before[actor]
        sql_ms = work.run_ms * max(work.sql, 0.1) * times
        run_ms = work.run_ms * (1 - work.sql) + sql_ms
        of.change(actor, run_ms=run_ms, sql=sql_ms / run_ms, processor=work.processor * work.run_ms / run_ms)
    return of.end("database_bound", of.draw.uniform(120, 240))


def failing(of: Draw) -> Drawn:
    actor = of.draw.choice(("mail", "sync", "report"))
    of.change(actor, failing=of.draw.uniform(0.4, 1.0), error=("KeyError", "'currency'"))
    return of.end("failing", of.draw.uniform(90, 240), about=actor)


def slower(of: Draw) -> Drawn:
    actor, times = of.draw.choice(("mail", "sync", "report")), of.many(2.5, 15)
    work = of.before[actor]
    busy = of.draw.random() < 0.5  # it computes, or waits for what nobody counts
    of.change(actor, run_ms=work.run_ms * times, sql=work.sql / times, processor=0.9 if busy else 0.05)
    return of.end("slower", of.draw.uniform(120, 240), about=actor)


def silent(of: Draw) -> Drawn:
    actor = of.draw.choice(("mail", "sync", "deliver"))
    of.change(actor, per_s=0.0)
    return of.end("silent", of.draw.uniform(150, 400), about=actor)


def wrong_queue(of: Draw) -> Drawn:
    """An actor whose runs do not fit the promise of its queue, and of which many are sent."""
    queue = of.draw.choice(("default", "urgent"))
    work, after_s = Work(queue, 0.0, of.many(12_000, 40_000), spread=0.2, sql=0.05), of.draw.uniform(40, 90)
    of.after["export"] = work
    rounds = round(after_s * 1_000 / work.run_ms) + of.draw.randint(2, 4)  # they last for longer than it is watched
    of.made.burst("export", work, PAST_S, PAST_S + 20, rounds * SLOTS[queue], 1)
    return of.end("wrong_queue", after_s, about="export")


def limit(of: Draw) -> Drawn:
    actor, count = of.draw.choice(("mail", "sync")), of.draw.randint(20, 150)
    each_s = max(of.many(2, 30), 150 / count)
    of.change(actor, per_s=of.before[actor].per_s / 3)
    return of.end("limit", of.draw.uniform(60, 200), about=actor, held=(actor, count, each_s))


def flood(of: Draw) -> Drawn:
    """One value of an argument, or one owner, has most of what waits."""
    actor, after_s = of.draw.choice(("sync", "report")), of.draw.uniform(60, 120)
    count = round(of.many(2, 4) * after_s * SLOTS["default"] * 1_000 / of.before[actor].run_ms)
    by_owner = of.draw.random() < 0.4
    for _ in range(count):
        args = (of.draw.randrange(1, 10_000),) if by_owner else (7,)
        of.made.burst(actor, of.before[actor], PAST_S, PAST_S + 10, 1, *args)
    return of.end("flood", after_s, about="default", flooding=actor, owner="acme" if by_owner else "")


def head_of_line(of: Draw) -> Drawn:
    """Jobs that fit the promise of their queue, and take much longer than the others, coincide."""
    work = Work("default", 0.1, of.draw.uniform(1_500, 2_400), spread=0.1, sql=0.1)
    of.before["statement"] = of.after["statement"] = work
    after_s = of.draw.uniform(40, 90)
    of.made.burst("statement", work, PAST_S, PAST_S + 5, round(of.many(1.5, 3) * after_s * 8_000 / work.run_ms))
    return of.end("head_of_line", after_s, about="statement")


def retry_storm(of: Draw) -> Drawn:
    """Many jobs wait for a retry, and what failed them is over."""
    return of.end("retry_storm", of.draw.uniform(60, 240), about="default", retrying=round(of.many(120, 600)))


def too_few_slots(of: Draw) -> Drawn:
    actors = ("mail", "sync", "report")
    busy = sum(of.before[actor].per_s * of.before[actor].run_ms / 1_000 for actor in actors)
    times = of.draw.uniform(1.4, 2.2) * SLOTS["default"] / busy
    for actor in actors:
        of.change(actor, per_s=of.before[actor].per_s * times)
    return of.end("too_few_slots", of.draw.uniform(90, 200), about="default")


def leak(of: Draw) -> Drawn:
    actor = of.draw.choice(("mail", "sync", "report"))
    of.change(actor, grown=round(of.many(0.2, 15) * 1e6 / max(of.before[actor].per_s, 0.3)))
    return of.end("leak", of.draw.uniform(660, 780), about=actor)


SITUATIONS: tuple[Situation, ...] = (
    nothing_dispatches, dependency_down, dependency_slow, database_bound, failing, slower, silent, wrong_queue, limit,
    flood, head_of_line, retry_storm, too_few_slots, leak, calm,
)  # fmt: skip
