"""Metrics: of queues, dead lists and pools, read from the broker at each scrape; and of this machine's workers."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from django.db import DatabaseError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from switchyard import __version__
from switchyard.broker.admin.limits import key_page, limit_states
from switchyard.broker.errors import BrokerError
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.links import runbook
from switchyard.history.metrics import history_metrics
from switchyard.jobs.queries import answering_families
from switchyard.loggers import get_logger
from switchyard.middleware.metrics import OWNER_ATTEMPTS, OWNER_SECONDS
from switchyard.operations import capacity
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.slots_needed import SlotsNeeded
from switchyard.operations.timeouts import NoAnswer, TimedCall
from switchyard.outbox.metrics import outbox_metrics
from switchyard.workers.metrics import undisturbed

TIMEOUT_S = 3.0
YARD_STATE = TimedCall("broker", yard_state)
OUTBOX = TimedCall("database", outbox_metrics)
CONNECTIONS = TimedCall("database", capacity.database_connections)
SLOTS_NEEDED = SlotsNeeded()


def limit_metrics() -> list[Metric]:
    """Return what limits hold back, by limit and never by key; of a fair queue the part of the largest value."""
    families = answering_families()
    labels = ("queue", "kind", "actor", "argument")
    taken = GaugeMetricFamily("switchyard_limit_taken", "Places of a limit that are taken.", labels=labels)
    waiting = GaugeMetricFamily("switchyard_limit_waiting", "Messages that wait for a limit.", labels=labels)
    tenants = GaugeMetricFamily("switchyard_fair_values", "Values that wait in a fair queue.", labels=("queue",))
    share = GaugeMetricFamily("switchyard_fair_largest_share", "Part of the largest value.", labels=("queue",))
    for one in limit_states(families):
        of = (one.queue, one.kind, one.actor, one.argument)
        if one.kind != "fair_share":
            taken.add_metric(of, one.taken or 0)
            waiting.add_metric(of, one.waiting or 0)
            continue
        family = next(each for each in families if each.keys.queue == one.queue)
        largest = [each.waiting for each in key_page(family, one, count=0).largest[:1]]
        tenants.add_metric((one.queue,), one.keys or 0)
        share.add_metric((one.queue,), min(sum(largest) / one.waiting, 1) if one.waiting else 0)
    return [taken, waiting, tenants, share]


LIMITS = TimedCall("broker", limit_metrics)


class BrokerMetrics:
    """Collector of the broker's metrics; while it is unavailable only ``switchyard_broker_up 0`` and the outbox's."""

    def collect(self) -> Iterator[Metric]:
        yield from _declared(declared_yard())
        yield from capacity.disk()
        with suppress(NoAnswer, DatabaseError):
            yield from CONNECTIONS.result(TIMEOUT_S)
        if switchyard_settings().sends == "outbox":
            with suppress(NoAnswer, DatabaseError):
                yield from OUTBOX.result(TIMEOUT_S)
        try:
            state = YARD_STATE.result(TIMEOUT_S)
        except (NoAnswer, BrokerError):
            yield _broker_up(is_up=False)
            return
        yield _broker_up(is_up=not state.server.refusal)
        yield from capacity.broker_memory(state.server)
        yield from _queues(state)
        with suppress(NoAnswer, BrokerError):
            yield from LIMITS.result(TIMEOUT_S)
        if state.server.pools_known:
            yield from _pools(state)
        if state.server.scheduler_known:
            leads = "Whether a scheduler leads."
            yield GaugeMetricFamily("switchyard_scheduler_up", leads, value=int(state.scheduler_up))
        with suppress(BrokerError):  # it went away since
            yield from history_metrics()


def _declared(yard: Yard) -> Iterator[Metric]:
    """Yield the version, and what alert rules compare with: one rule serves every queue of every yard."""
    yield _gauge("switchyard_info", "1, of Switchyard's version in the web process.", {__version__: 1}, label="version")
    starts = {queue.name: queue.objective_ms / 1_000 for queue in yard.queues if queue.objective_ms is not None}
    yield _gauge("switchyard_queue_objective_seconds", "Time within which messages start, as promised.", starts)
    ends = {queue.name: queue.done_objective_ms / 1_000 for queue in yard.queues if queue.done_objective_ms is not None}
    yield _gauge("switchyard_queue_done_objective_seconds", "Time within which messages end, as promised.", ends)
    limits = {pool.name: pool.memory_limit_bytes for pool in yard.pools if pool.memory_limit_bytes is not None}
    text = "Resident memory at which a child of the pool is killed."
    yield _gauge("switchyard_child_memory_limit_bytes", text, limits, label="pool")
    yield _gauge("switchyard_steps_info", "1, of the address of the steps of alerts.", {runbook(""): 1}, label="url")
    serves = GaugeMetricFamily("switchyard_pool_serves", "1 for each lane of a pool.", labels=("pool", "queue"))
    for pool in yard.pools:
        for lane in yard.served_by(pool):
            serves.add_metric((pool.name, lane), 1)
    yield serves


def _broker_up(*, is_up: bool) -> Metric:
    return GaugeMetricFamily("switchyard_broker_up", "Whether the broker answers and takes work.", value=int(is_up))


def _gauge(name: str, text: str, values: Mapping[str, float], *, label: str = "queue") -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family


def _queues(state: YardState) -> Iterator[Metric]:
    text = "Messages in a queue or retry lane, by where they are."
    depth = GaugeMetricFamily("switchyard_queue_depth", text, labels=("queue", "state"))
    lanes = [lane for stats in state.queues for lane in (stats.live, stats.retry)]
    for lane in lanes:
        for name, count in (("waiting", lane.waiting), ("scheduled", lane.scheduled), ("running", lane.running)):
            depth.add_metric((lane.name, name), count)
    yield depth
    ages = {lane.name: (lane.oldest_age_ms or 0) / 1_000 for lane in lanes}
    text = "Age of the oldest waiting message; 0 when nothing waits."
    yield _gauge("switchyard_queue_oldest_age_seconds", text, ages)
    for family, text, figure in (
        ("switchyard_dead_letters", "Messages in a queue's dead list.", "dead"),
        ("switchyard_queue_paused", "Whether a queue is paused.", "paused"),
        ("switchyard_quarantined", "Messages of a queue that nobody can read.", "quarantined"),
        ("switchyard_parked", "Messages of a queue that wait for a worker whose code knows them.", "parked"),
    ):
        yield _gauge(family, text, {stats.queue: int(getattr(stats, figure)) for stats in state.queues})
    text = "Open circuits of a dependency in a queue."
    open_circuits = GaugeMetricFamily("switchyard_circuits_open", text, labels=("queue", "dependency"))
    for stats in state.queues:
        opened = Counter(each.pause.dependency for each in stats.circuits)
        for dependency in declared_yard().dependencies:
            open_circuits.add_metric((stats.queue, dependency.name), opened[dependency.name])
    yield open_circuits
    text = "Sends that met a unique key which another unfinished message held."
    yields = CounterMetricFamily("switchyard_unique_yields", text, labels=("queue", "actor"))
    for stats in state.queues:
        for actor, count in sorted(stats.yields.items()):
            yields.add_metric((stats.queue, actor), count)
    yield yields
    unfinished_ms = {stats.queue: stats.oldest_unfinished_age_ms for stats in state.queues}
    text = "Time since the oldest message that waits or is held was ready, of queues that promise their end"
    promising = [queue.name for queue in declared_yard().queues if queue.done_objective_ms is not None]
    ages = {name: (unfinished_ms[name] or 0) / 1_000 for name in promising if name in unfinished_ms}
    yield _gauge("switchyard_queue_oldest_unfinished_age_seconds", f"{text}; 0 for none.", ages)
    text = "Whether a queue starts nothing, since its server is away or has only a part of its keys."
    away = {queue.name: int(queue.name in state.server.away.starts_nothing) for queue in declared_yard().queues}
    yield _gauge("switchyard_queue_away", text, away)


def _pools(state: YardState) -> Iterator[Metric]:
    for name, text, figure in (
        ("up", "1 while a pool has a child that takes work.", "ready"),
        ("slots", "Messages a pool can run at once.", "slots"),
        ("slots_busy", "Messages a pool runs now.", "busy"),
        ("memory_bytes", "Resident memory of a pool's children.", "memory_bytes"),
    ):
        values = {pool: int(getattr(each, figure)) for pool, each in state.pools.items()}
        yield _gauge(f"switchyard_worker_{name}", text, values, label="pool")
    largest = {
        pool: max((child.get("rss_bytes", 0) for report in each.reports for child in report.children), default=0)
        for pool, each in state.pools.items()
    }
    yield _gauge("switchyard_worker_memory_max_bytes", "Memory of a pool's largest child.", largest, label="pool")
    text = "Slots that would keep the pool's promise at the arrivals and durations of the last minute."
    needed = SLOTS_NEEDED.note(declared_yard(), state)
    yield _gauge("switchyard_pool_slots_needed", text, needed, label="pool")
    text = "Children restarted since the pool's supervisor started, by reason."
    restarts = CounterMetricFamily("switchyard_worker_restarts", text, labels=("pool", "reason"))
    for pool, each in state.pools.items():
        for reason, count in sorted(each.restarts.items()):
            restarts.add_metric((pool, reason), count)
    yield restarts


log = get_logger(__name__)

UNREADABLE = (OSError, ValueError, struct.error, RuntimeError)


class WorkerMetrics:
    """Collector of the workers' counters and histograms.

    Args:
        metrics_dir: One folder for each pool, one ``*.db`` file for each child and type.
        taken: Metric families of another collector; an exposition must not repeat a name.
    """

    def __init__(self, metrics_dir: Path, *, taken: frozenset[str] = frozenset()) -> None:
        self._metrics_dir = metrics_dir
        self._taken = taken

    def collect(self) -> Iterator[Metric]:
        for family in self._merged():
            if family.name not in self._taken and family.name not in (OWNER_ATTEMPTS, OWNER_SECONDS):
                yield family

    def _merged(self) -> list[Metric]:
        with undisturbed(folder for folder in self._metrics_dir.glob("*") if folder.is_dir()):
            files = sorted(str(path) for path in self._metrics_dir.glob("*/*.db"))
            try:
                return list(MultiProcessCollector.merge(files))
            except UNREADABLE:
                # A child that is starting is still creating its files.
                return list(MultiProcessCollector.merge([file for file in files if _readable(file)]))


def _readable(file: str) -> bool:
    try:
        list(MmapedDict.read_all_values_from_file(file))
    except UNREADABLE as error:
        log.info("metrics file left out of this scrape", file=Path(file).name, error=type(error).__name__)
        return False
    return True
