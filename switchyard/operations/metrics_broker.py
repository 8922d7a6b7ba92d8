"""Metrics of queues, dead lists and pools, read from the broker at each scrape, and what the yard declares of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from switchyard.broker.errors import BrokerError
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard
from switchyard.history.metrics import history_metrics
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.timeouts import NoAnswer, TimedCall

TIMEOUT_S = 3.0
YARD_STATE = TimedCall("broker", yard_state)


class BrokerMetrics:
    """Collector of the broker's metrics; of them, while it is unavailable, only ``switchyard_broker_up 0``."""

    def collect(self) -> Iterator[Metric]:
        """Return the metric families."""
        yield from _declared(declared_yard())
        try:
            state = YARD_STATE.result(TIMEOUT_S)
        except (NoAnswer, BrokerError):
            yield _broker_up(is_up=False)
            return
        yield _broker_up(is_up=not state.server.refusal)
        yield from _lanes(state)
        yield from _families(state)
        yield _away(state)
        if state.server.pools_known:
            yield from _pools(state)
        if state.server.scheduler_known:
            leads = "Whether a scheduler leads."
            yield GaugeMetricFamily("switchyard_scheduler_up", leads, value=int(state.scheduler_up))
        with suppress(BrokerError):  # it went away since
            yield from history_metrics()


def _declared(yard: Yard) -> Iterator[Metric]:
    """Yield what alert rules compare with: one rule serves every queue of every yard."""
    starts = GaugeMetricFamily(
        "switchyard_queue_objective_seconds", "Time within which messages start, as promised.", labels=("queue",)
    )
    ends = GaugeMetricFamily(
        "switchyard_queue_done_objective_seconds", "Time within which messages end, as promised.", labels=("queue",)
    )
    for queue in yard.queues:
        for family, promised_ms in ((starts, queue.objective_ms), (ends, queue.done_objective_ms)):
            if promised_ms is not None:
                family.add_metric((queue.name,), promised_ms / 1_000)
    serves = GaugeMetricFamily("switchyard_pool_serves", "1 for each lane of a pool.", labels=("pool", "queue"))
    for pool in yard.pools:
        for lane in yard.served_by(pool):
            serves.add_metric((pool.name, lane), 1)
    yield from (starts, ends, serves)


def _broker_up(*, is_up: bool) -> Metric:
    return GaugeMetricFamily("switchyard_broker_up", "Whether the broker answers and takes work.", value=int(is_up))


def _away(state: YardState) -> Metric:
    text = "Whether a queue starts nothing, since its server is away or has only a part of its keys."
    away = GaugeMetricFamily("switchyard_queue_away", text, labels=("queue",))
    for queue in declared_yard().queues:
        away.add_metric((queue.name,), int(queue.name in state.server.away.starts_nothing))
    return away


def _lanes(state: YardState) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "switchyard_queue_depth", "Messages in a queue or retry lane, by where they are.", labels=("queue", "state")
    )
    oldest = GaugeMetricFamily(
        "switchyard_queue_oldest_age_seconds",
        "Age of the oldest waiting message; 0 when nothing waits.",
        labels=("queue",),
    )
    for lane in (lane for stats in state.queues for lane in (stats.live, stats.retry)):
        for name, count in (("waiting", lane.waiting), ("scheduled", lane.scheduled), ("running", lane.running)):
            depth.add_metric((lane.name, name), count)
        oldest.add_metric((lane.name,), (lane.oldest_age_ms or 0) / 1_000)
    yield depth
    yield oldest


def _families(state: YardState) -> Iterator[Metric]:
    dead = GaugeMetricFamily("switchyard_dead_letters", "Messages in a queue's dead list.", labels=("queue",))
    paused = GaugeMetricFamily("switchyard_queue_paused", "Whether a queue is paused.", labels=("queue",))
    quarantined = GaugeMetricFamily(
        "switchyard_quarantined", "Messages of a queue that nobody can read.", labels=("queue",)
    )
    parked = GaugeMetricFamily(
        "switchyard_parked", "Messages of a queue that wait for a worker whose code knows them.", labels=("queue",)
    )
    for stats in state.queues:
        parked.add_metric((stats.queue,), stats.parked)
        dead.add_metric((stats.queue,), stats.dead)
        paused.add_metric((stats.queue,), int(stats.paused))
        quarantined.add_metric((stats.queue,), stats.quarantined)
    yield from (dead, paused, quarantined, parked)
    yield _unfinished(state)


def _unfinished(state: YardState) -> Metric:
    oldest = GaugeMetricFamily(
        "switchyard_queue_oldest_unfinished_age_seconds",
        "Time since the oldest message that waits or is held was ready, of queues that promise their end; 0 for none.",
        labels=("queue",),
    )
    for stats in state.queues:
        if declared_yard().queue_of(stats.queue).done_objective_ms is not None:
            oldest.add_metric((stats.queue,), (stats.oldest_unfinished_age_ms or 0) / 1_000)
    return oldest


def _pools(state: YardState) -> Iterator[Metric]:
    up = GaugeMetricFamily("switchyard_worker_up", "1 while a pool has a child that takes work.", labels=("pool",))
    slots = GaugeMetricFamily("switchyard_worker_slots", "Messages a pool can run at once.", labels=("pool",))
    busy = GaugeMetricFamily("switchyard_worker_slots_busy", "Messages a pool runs now.", labels=("pool",))
    memory = GaugeMetricFamily(
        "switchyard_worker_memory_bytes", "Resident memory of a pool's children.", labels=("pool",)
    )
    restarts = CounterMetricFamily(
        "switchyard_worker_restarts",
        "Children restarted since the pool's supervisor started, by reason.",
        labels=("pool", "reason"),
    )
    for name, pool in state.pools.items():
        up.add_metric((name,), int(pool.ready))
        slots.add_metric((name,), pool.slots)
        busy.add_metric((name,), pool.busy)
        memory.add_metric((name,), pool.memory_bytes)
        for reason, count in sorted(pool.restarts.items()):
            restarts.add_metric((name, reason), count)
    yield from (up, slots, busy, memory, restarts)
