"""Slots that would keep a promise: at the present arrivals, one number for autoscalers; and in a plan, with its waits.

A plan is a seeded simulation of arrivals and run times. Source of its model: docs/explanation/planning.md.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import accumulate, pairwise, zip_longest
from statistics import NormalDist, mean
from typing import Final

from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, FactStore, merged, percentile_ms, queue_subject, starts
from switchyard.broker.topology import Pool, Yard
from switchyard.operations.queries import YardState

WINDOW_S, SHORTEST_S = 60.0, 10.0
# A backlog is to be over by then, or within the promise where that is longer: a new pod takes most of a minute.
DRAIN_S: Final = 60.0
# Share of messages that may start later than promised.
LATE: Final = 0.01


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """Figures of a pool at one moment.

    Args:
        work: Messages ended, and seconds that slots were busy, of each of its supervisors since that started.
        waiting: Messages of its lanes that wait; those of paused queues do not count.
        busy: Messages that run.
    """

    at_s: float
    work: Mapping[str, tuple[int, float]]
    waiting: int
    busy: int


def slots_for(load: float, duration_s: float, promise_s: float | None) -> int:
    """Return the least slots with which at most one message in a hundred starts later than promised.

    Messages arrive by chance and take ``duration_s`` in the mean: an M/M/c queue, whose formula errs on the safe side
    where run times differ by less than an exponential distribution, and knows nothing of bursts.

    Args:
        load: Slots that the arrivals keep busy in the mean.
        promise_s: Time until a message starts; ``None`` for slots that only keep up.

    Source: Erlang's C formula, as in Gans, Koole, Mandelbaum, "Telephone Call Centers", MSOM 5 (2003), section 3.1.
    """
    slots, lost = 0, 1.0
    while True:
        slots += 1
        lost = load * lost / (slots + load * lost)  # Erlang's B formula for so many slots
        if slots <= load:
            continue
        if promise_s is None:
            return slots
        waits = slots * lost / (slots - load * (1 - lost))
        if waits * math.exp(-(slots - load) * promise_s / max(duration_s, 0.001)) <= LATE:
            return slots


def slots_with_backlog(load: float, duration_s: float, promise_s: float | None, waiting: int) -> int:
    """Return the slots of :func:`slots_for`, or those that also start what waits within a minute, or the promise."""
    drained = load + waiting * duration_s / max(promise_s or 0.0, DRAIN_S)
    return max(slots_for(load, duration_s, promise_s), math.ceil(drained))


def needed(first: PoolSnapshot, last: PoolSnapshot, promise_s: float | None) -> int | None:
    """Return the slots that a pool needs by two snapshots; ``None`` where no supervisor is in both.

    The mean of busy slots is the load that was served (Little's law), and the growth of what waits is load as well.
    """
    both = [(first.work[member], last.work[member]) for member in first.work.keys() & last.work.keys()]
    seconds = last.at_s - first.at_s
    if not both or seconds <= 0:
        return None
    ended = sum(after[0] - before[0] for before, after in both)
    busy_s = sum(after[1] - before[1] for before, after in both)
    duration_s = busy_s / max(ended, last.busy, 1)
    load = max(busy_s + (last.waiting - first.waiting) * duration_s, 0.0) / seconds
    return slots_with_backlog(load, duration_s, promise_s, last.waiting)


# The last minute's snapshots of every pool, in this process.
_snapshots: dict[str, deque[PoolSnapshot]] = {}
_lock = threading.Lock()


def needed_now(yard: Yard, state: YardState) -> dict[str, int]:
    """Keep the state, and return the slots that each pool needs by the last minute of them.

    A pool is missing until its supervisor reports for 10 s, and while it is down.
    """
    now_s, found = time.monotonic(), {}
    for pool in yard.pools:
        snapshot = snapshot_of(yard, pool, state, now_s)
        with _lock:
            kept = _snapshots.setdefault(pool.name, deque(maxlen=int(WINDOW_S)))
            while kept and now_s - kept[0].at_s > WINDOW_S:
                kept.popleft()
            if not kept or now_s - kept[-1].at_s >= 1:
                kept.append(snapshot)
            first = kept[0]
        if now_s - first.at_s >= SHORTEST_S and (slots := needed(first, snapshot, promise_of(yard, pool))):
            found[pool.name] = slots
    return found


def promise_of(yard: Yard, pool: Pool) -> float | None:
    """Return the shortest objective of a pool's queues in seconds; ``None`` without one, as for retry lanes."""
    lanes = yard.served_by(pool)
    objectives = [queue.objective_ms for queue in yard.queues if queue.name in lanes and queue.objective_ms is not None]
    return min(objectives) / 1_000 if objectives else None


def snapshot_of(yard: Yard, pool: Pool, state: YardState, at_s: float) -> PoolSnapshot:
    """Return a pool's figures. A lane that several pools serve counts for each of them."""
    lanes = yard.served_by(pool)
    each = (lane for stats in state.queues if not stats.paused for lane in (stats.live, stats.retry))
    reports = state.pools[pool.name].reports
    return PoolSnapshot(
        at_s,
        {report.member: (report.done, report.busy_ms / 1_000) for report in reports},
        sum(lane.waiting for lane in each if lane.name in lanes),
        sum(report.busy for report in reports),
    )


MINUTE_S: Final = 60.0
# Simulated stretches for each number of slots, of which so many must keep the promise.
STRETCHES, KEEP = 40, 36
# Messages of a simulated stretch at most; of a busier pool a shorter one is simulated.
MOST_MESSAGES: Final = 20_000
# Part of a stretch before the first minute that counts, so that the queue is as long as usual by then.
WARM: Final = 0.25
# Between two messages of a slot, and from a message's sending to its start where a slot is free: the median of
# `bin/bench idle` with the whole stack, and what a machine adds whose cores are all busy.
OWN_S, OWN_MOST_S = 0.0015, 0.020
# Equally likely run times that stand for all.
POINTS: Final = 400
# The server's processor time for a message, in seconds: of messages that are sent and fetched in batches
# (`bin/bench enqueue drain`), and of those that come one by one, 1,000 a second (docs/performance.md). A server is full
# at this share of a processor.
SERVER_S, FULL = (20e-6, 171e-6), 0.7


@dataclass(frozen=True, slots=True)
class Demand:
    """Work that arrives: messages a second, minute by minute, and equally likely run times."""

    rates: tuple[float, ...]
    runs_s: tuple[float, ...]

    @property
    def run_s(self) -> float:
        """Mean run time."""
        return mean(self.runs_s)

    @property
    def load(self) -> float:
        """Slots that the work keeps busy in the mean, with what the yard needs between two messages."""
        return mean(self.rates) * (self.run_s + OWN_S)

    def busiest(self, minutes: int) -> Demand:
        """Return the stretch of so many minutes in which most arrives."""
        sums = [0.0, *accumulate(self.rates)]
        length = min(max(minutes, 1), len(self.rates))
        begin = max(range(len(self.rates) - length + 1), key=lambda at: sums[at + length] - sums[at])
        return Demand(self.rates[begin : begin + length], self.runs_s)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Waits of simulated stretches with a number of slots.

    Args:
        late: Share of the messages that start later than promised, over all stretches; 0 without a promise.
        kept: Share of the stretches in which at most one message in a hundred does.
        p95_s: Least and largest 95th percentile of a stretch's waits.
    """

    slots: int
    late: float
    kept: float
    p95_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Plan of one pool.

    Args:
        demand: Its busiest stretch.
        declared: Outlook with the slots that the topology declares.
        named: Outlook with the slots that it needs.
        fewer: Outlook with one slot less; ``None`` for a single slot.
        places: Broker's servers that carry the arrivals: where messages come in batches, and one by one.
    """

    pool: Pool
    lanes: tuple[str, ...]
    promise_s: float | None
    demand: Demand
    declared: Outlook
    named: Outlook
    fewer: Outlook | None
    places: tuple[int, int]

    @property
    def processes(self) -> int:
        """Children with the slots of the declared ones."""
        return math.ceil(self.named.slots / self.pool.slots)


def by_percentiles(p50_s: float, p95_s: float) -> tuple[float, ...]:
    """Return run times of a log-normal distribution with these percentiles."""
    normal = NormalDist()
    sigma = math.log(p95_s / p50_s) / normal.inv_cdf(0.95)
    return tuple(p50_s * math.exp(sigma * normal.inv_cdf((n + 0.5) / POINTS)) for n in range(POINTS))


def by_counts(counts: Counts) -> tuple[float, ...]:
    """Return run times as a yard counted them: spread evenly within their class, with the mean that was measured."""
    points = [percentile_ms(counts, facts.RUNS, (n + 0.5) / POINTS) or 0.0 for n in range(POINTS)]
    ended = sum(counts.get(facts.RUNS + n, 0) for n in range(facts.CLASSES))
    if not ended or not sum(points):
        return (0.0,)
    scale = counts.get(facts.RUN_MS, 0) / ended / mean(points) / 1_000
    return tuple(point * scale for point in points)


def recorded(store: FactStore, lanes: Iterable[str], since_ms: int, until_ms: int) -> dict[str, Demand]:
    """Return what arrived in lanes minute by minute: what started, and what then waited more than a minute before.

    Lanes in which nothing ran are left out.
    """
    found = {lane: store.minutes(queue_subject(lane), since_ms, until_ms) for lane in lanes}
    found = {lane: minutes for lane, minutes in found.items() if any(map(starts, minutes.values()))}
    known = {at for minutes in found.values() for at in minutes}
    every = range(min(known), max(known) + 1, facts.MINUTE_MS) if known else ()
    return {lane: counted([minutes.get(at, {}) for at in every]) for lane, minutes in found.items()}


def counted(minutes: Sequence[Counts]) -> Demand:
    """Return what arrived by the counts of a lane, one for each minute."""
    waiting = [0, *(counts.get(facts.DEPTH, 0) for counts in minutes)]
    more = [after - before for before, after in pairwise(waiting)]
    rates = [max(starts(counts) + grown, 0) / MINUTE_S for counts, grown in zip(minutes, more, strict=True)]
    return Demand(tuple(rates), by_counts(merged(minutes)))


def together(demands: Sequence[Demand]) -> Demand:
    """Return the work of several lanes as that of one line. Run times are mixed by how many arrive of each."""
    total = sum(sum(demand.rates) for demand in demands) or 1.0
    runs_s: list[float] = []
    for demand in demands:
        points, known = math.ceil(POINTS * sum(demand.rates) / total), sorted(demand.runs_s)
        runs_s += [known[int((n + 0.5) * len(known) / points)] for n in range(points)]
    rates = tuple(map(sum, zip_longest(*(demand.rates for demand in demands), fillvalue=0.0)))
    return Demand(rates, tuple(runs_s) or (0.0,))


def simulate(demand: Demand, slots: int, *, seed: int) -> list[float]:
    """Return how long each message of a stretch waits for one of so many slots, in seconds.

    Messages arrive by chance at the rate of their minute and start in their order. The stretch begins with the usual
    number of busy slots, and with a quarter of its length more at the first rate, which does not count.
    """
    chance = random.Random(seed)  # noqa: S311  a simulation
    draw, runs_s, last = chance.random, [run_s + OWN_S for run_s in demand.runs_s], len(demand.runs_s)
    rate = mean(demand.rates)
    length_s = min(MINUTE_S * len(demand.rates), MOST_MESSAGES / rate if rate else math.inf)
    warm_s = length_s * WARM
    # A run that is caught at a moment is a long one more often than a short one.
    busy = min(slots, round(demand.rates[0] * (demand.run_s + OWN_S)))
    free_s = [run_s * draw() for run_s in chance.choices(runs_s, weights=runs_s, k=busy)] + [0.0] * (slots - busy)
    heapify(free_s)
    waits: list[float] = []
    at_s = end_s = 0.0
    for number, rate in enumerate((demand.rates[0], *demand.rates)):
        end_s = min(end_s + MINUTE_S, warm_s + length_s) if number else warm_s
        if rate <= 0:
            at_s = end_s
            continue
        while (at_s := at_s + chance.expovariate(rate)) < end_s:
            start_s = max(at_s, free_s[0])
            heapreplace(free_s, start_s + runs_s[int(draw() * last)])
            if number:
                waits.append(start_s - at_s)
        at_s = end_s  # the time to the next arrival does not depend on the last one
    return waits


def outlook(demand: Demand, slots: int, promise_s: float | None, *, seed: int = 0) -> Outlook:
    """Return what to expect of so many slots."""
    late = messages = kept = 0
    p95s = []
    for number in range(STRETCHES):
        waits = sorted(simulate(demand, slots, seed=seed * STRETCHES + number)) or [0.0]
        over = sum(wait_s > promise_s for wait_s in waits) if promise_s is not None else 0
        late, messages, kept = late + over, messages + len(waits), kept + (over <= LATE * len(waits))
        p95s.append(waits[math.ceil(0.95 * len(waits)) - 1])
    return Outlook(slots, late / messages, kept / STRETCHES, (min(p95s), max(p95s) + OWN_MOST_S))


def least_slots(demand: Demand, promise_s: float | None, *, seed: int = 0) -> Outlook:
    """Return the outlook of the least slots that keep a promise in nearly every stretch; without one, that keep up."""
    least = math.floor(demand.load) + 1
    found = outlook(demand, max(slots_for(demand.load, demand.run_s, promise_s), least), promise_s, seed=seed)
    if promise_s is None:
        return found
    while found.kept * STRETCHES < KEEP:
        found = outlook(demand, found.slots + max(1, found.slots // 20), promise_s, seed=seed)
    while found.slots > least:
        less = outlook(demand, found.slots - 1, promise_s, seed=seed)
        if less.kept * STRETCHES < KEEP:
            break
        found = less
    return found


def places_for(rate: float) -> tuple[int, int]:
    """Return the broker's servers that carry so many messages a second, in batches and one by one."""
    least, most = (max(math.ceil(rate * each_s / FULL), 1) for each_s in SERVER_S)
    return least, most


def plan(
    yard: Yard, lanes: Mapping[str, Demand], promise_s: float | None = None, *, minutes: int, seed: int = 0
) -> list[PoolPlan]:
    """Return the plan of each pool that serves some of the lanes, for the busiest stretch of its work.

    Lanes that no pool serves are left out. One of several pools counts for each of them.

    Args:
        promise_s: In place of the shortest objective of a pool's queues.
        minutes: Length of the stretch.
    """
    plans = []
    for pool in yard.pools:
        served = tuple(lane for lane in yard.served_by(pool) if lane in lanes)
        if not served:
            continue
        demand = together([lanes[lane] for lane in served]).busiest(minutes)
        own_s = promise_of(yard, pool) if promise_s is None else promise_s
        named = least_slots(demand, own_s, seed=seed)
        fewer = outlook(demand, named.slots - 1, own_s, seed=seed) if named.slots > 1 else None
        declared = outlook(demand, pool.total_slots, own_s, seed=seed)
        plans.append(PoolPlan(pool, served, own_s, demand, declared, named, fewer, places_for(max(demand.rates))))
    return plans
