"""Metrics of queues, dead lists and pools, read from the broker at each scrape; of this machine and its workers."""

import shutil
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from django.db import DatabaseError, connection, connections
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from switchyard import __version__
from switchyard.broker.admin.limits import key_page, limit_states
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.servers import servers_of
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.links import runbook
from switchyard.jobs.queries import answering_families
from switchyard.loggers import get_logger
from switchyard.long_running import HISTORY_WRITER, anyone_leads
from switchyard.middleware.metrics import OWNER_ATTEMPTS, OWNER_SECONDS
from switchyard.operations.findings.database import open_connections
from switchyard.operations.plan import needed_now
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.supervisors import ServerState
from switchyard.operations.timeouts import NoAnswer, TimedCall
from switchyard.outbox.rows import outbox_metrics
from switchyard.workers.checks.database import connections_allowed
from switchyard.workers.metrics import undisturbed


def broker_memory(server: ServerState) -> Iterator[Metric]:
    """Yield memory and limit of the broker's fullest server; nothing where no server has a limit."""
    if server.memory is not None:
        used, most = server.memory
        yield GaugeMetricFamily("switchyard_broker_memory_bytes", "Memory of the broker's fullest server.", value=used)
        yield GaugeMetricFamily("switchyard_broker_memory_max_bytes", "Its maxmemory.", value=most)


def disk() -> Iterator[Metric]:
    """Yield size and free space of the disk of the state folder; nothing before something ran here."""
    folder = switchyard_settings().state_dir
    if folder.is_dir():
        usage = shutil.disk_usage(folder)
        text = "Free space of the disk of the state folder."
        yield GaugeMetricFamily("switchyard_disk_free_bytes", text, value=usage.free)
        yield GaugeMetricFamily("switchyard_disk_size_bytes", "Size of that disk.", value=usage.total)


def database_connections() -> list[Metric]:
    """Return open and allowed connections of a PostgreSQL, and close those of this thread; empty for SQLite."""
    if connection.vendor != "postgresql":
        return []
    try:
        allowed, (used, _) = connections_allowed(connection), open_connections()
    finally:
        connections.close_all()
    return [
        GaugeMetricFamily("switchyard_database_connections", "Open connections of all clients.", value=used),
        GaugeMetricFamily("switchyard_database_connections_max", "Connections that users may open.", value=allowed),
    ]


TIMEOUT_S = 3.0
YARD_STATE = TimedCall("broker", yard_state)
OUTBOX = TimedCall("database", outbox_metrics)
CONNECTIONS = TimedCall("database", database_connections)


Row = tuple[*tuple[str, ...], float]
Kind = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _family(name: str, text: str, rows: Iterable[Row], *labels: str, kind: Kind = GaugeMetricFamily) -> Metric:
    """Return a family of rows, each with the values of its labels, of ``queue`` without any, and the figure."""
    family = kind(name, text, labels=labels or ("queue",))
    for *named, value in rows:
        family.add_metric(named, value)
    return family


def limit_metrics() -> list[Metric]:
    """Return what limits hold back, by limit and never by key; of a fair queue the part of the largest value."""
    families = {each.keys.queue: each for each in answering_families()}
    taken, waiting, values, shares = list[Row](), list[Row](), list[Row](), list[Row]()
    for one in limit_states(list(families.values())):
        of = (one.queue, one.kind, one.actor, one.argument)
        if one.kind != "fair_share":
            taken.append((*of, one.taken or 0))
            waiting.append((*of, one.waiting or 0))
            continue
        largest = [each.waiting for each in key_page(families[one.queue], one, count=0).largest[:1]]
        values.append((one.queue, one.keys or 0))
        shares.append((one.queue, min(sum(largest) / one.waiting, 1) if one.waiting else 0))
    labels = ("queue", "kind", "actor", "argument")
    return [
        _family("switchyard_limit_taken", "Places of a limit that are taken.", taken, *labels),
        _family("switchyard_limit_waiting", "Messages that wait for a limit.", waiting, *labels),
        _family("switchyard_fair_values", "Values that wait in a fair queue.", values),
        _family("switchyard_fair_largest_share", "Part of the largest value.", shares),
    ]


def history_metrics() -> Iterator[Metric]:
    """Yield the metrics of the history; ``BrokerError`` where the broker does not answer."""
    own = facilities()
    calls, keys = own.records.calls, own.records.keys
    queues = [queue.name for queue in own.yard.queues]
    away = servers_of(calls, keys, queues).away().queues
    streams = HistoryStreams(calls, keys, (queue for queue in queues if queue not in away))
    leads, counts, backlog = anyone_leads(calls, keys, HISTORY_WRITER), streams.counts(), streams.backlog()
    yield GaugeMetricFamily("switchyard_history_writer_up", "Whether a history writer leads.", value=int(leads))
    yield CounterMetricFamily("switchyard_history_written", "Ended attempts written.", value=counts["written"])
    text = "Ended attempts that could not be read or stored."
    yield CounterMetricFamily("switchyard_history_skipped", text, value=counts["skipped"])
    text = "Age of the oldest ended attempt that is not written yet; 0 when none waits."
    ages = [(each.queue, (each.oldest_age_ms or 0) / 1_000) for each in backlog]
    yield _family("switchyard_history_lag_seconds", text, ages)
    text = "Ended attempts lost to the budget before they were written."
    dropped = [(each.queue, each.dropped) for each in backlog]
    yield _family("switchyard_history_dropped", text, dropped, kind=CounterMetricFamily)


LIMITS = TimedCall("broker", limit_metrics)


class BrokerMetrics:
    """Collector of the broker's metrics; while it is unavailable only ``switchyard_broker_up 0`` and the outbox's."""

    def collect(self) -> Iterator[Metric]:
        yield from _declared(declared_yard())
        yield from disk()
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
        yield from broker_memory(state.server)
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
    yield _family("switchyard_info", "1, of Switchyard's version in the web process.", [(__version__, 1)], "version")
    starts = [(queue.name, queue.objective_ms / 1_000) for queue in yard.queues if queue.objective_ms is not None]
    yield _family("switchyard_queue_objective_seconds", "Time within which messages start, as promised.", starts)
    ends = [(one.name, one.done_objective_ms / 1_000) for one in yard.queues if one.done_objective_ms is not None]
    yield _family("switchyard_queue_done_objective_seconds", "Time within which messages end, as promised.", ends)
    limits = [(pool.name, pool.memory_limit_bytes) for pool in yard.pools if pool.memory_limit_bytes is not None]
    text = "Resident memory at which a child of the pool is killed."
    yield _family("switchyard_child_memory_limit_bytes", text, limits, "pool")
    yield _family("switchyard_steps_info", "1, of the address of the steps of alerts.", [(runbook(""), 1)], "url")
    serves = [(pool.name, lane, 1) for pool in yard.pools for lane in yard.served_by(pool)]
    yield _family("switchyard_pool_serves", "1 for each lane of a pool.", serves, "pool", "queue")


def _broker_up(*, is_up: bool) -> Metric:
    return GaugeMetricFamily("switchyard_broker_up", "Whether the broker answers and takes work.", value=int(is_up))


def _queues(state: YardState) -> Iterator[Metric]:
    lanes, yard = [lane for stats in state.queues for lane in (stats.live, stats.retry)], declared_yard()
    places = ("waiting", "scheduled", "running")
    depths = [(lane.name, place, getattr(lane, place)) for lane in lanes for place in places]
    text = "Messages in a queue or retry lane, by where they are."
    yield _family("switchyard_queue_depth", text, depths, "queue", "state")
    ages = [(lane.name, (lane.oldest_age_ms or 0) / 1_000) for lane in lanes]
    text = "Age of the oldest waiting message; 0 when nothing waits."
    yield _family("switchyard_queue_oldest_age_seconds", text, ages)
    for name, text, figure in (
        ("switchyard_dead_letters", "Messages in a queue's dead list.", "dead"),
        ("switchyard_queue_paused", "Whether a queue is paused.", "paused"),
        ("switchyard_quarantined", "Messages of a queue that nobody can read.", "quarantined"),
        ("switchyard_parked", "Messages of a queue that wait for a worker whose code knows them.", "parked"),
    ):
        yield _family(name, text, [(stats.queue, int(getattr(stats, figure))) for stats in state.queues])
    opened = Counter((stats.queue, each.pause.dependency) for stats in state.queues for each in stats.circuits)
    circuits = [
        (stats.queue, each.name, opened[stats.queue, each.name]) for stats in state.queues for each in yard.dependencies
    ]
    text = "Open circuits of a dependency in a queue."
    yield _family("switchyard_circuits_open", text, circuits, "queue", "dependency")
    text = "Sends that met a unique key which another unfinished message held."
    yields = [(stats.queue, *each) for stats in state.queues for each in sorted(stats.yields.items())]
    yield _family("switchyard_unique_yields", text, yields, "queue", "actor", kind=CounterMetricFamily)
    unfinished_ms = {stats.queue: stats.oldest_unfinished_age_ms for stats in state.queues}
    text = "Time since the oldest message that waits or is held was ready, of queues that promise their end"
    promising = [queue.name for queue in yard.queues if queue.done_objective_ms is not None]
    ages = [(name, (unfinished_ms[name] or 0) / 1_000) for name in promising if name in unfinished_ms]
    yield _family("switchyard_queue_oldest_unfinished_age_seconds", f"{text}; 0 for none.", ages)
    text = "Whether a queue starts nothing, since its server is away or has only a part of its keys."
    away = state.server.away.starts_nothing
    yield _family("switchyard_queue_away", text, [(queue.name, int(queue.name in away)) for queue in yard.queues])


def _pools(state: YardState) -> Iterator[Metric]:
    for name, text, figure in (
        ("up", "1 while a pool has a child that takes work.", "ready"),
        ("slots", "Messages a pool can run at once.", "slots"),
        ("slots_busy", "Messages a pool runs now.", "busy"),
        ("memory_bytes", "Resident memory of a pool's children.", "memory_bytes"),
    ):
        values = [(pool, int(getattr(each, figure))) for pool, each in state.pools.items()]
        yield _family(f"switchyard_worker_{name}", text, values, "pool")
    largest = [
        (pool, max((child.get("rss_bytes", 0) for report in each.reports for child in report.children), default=0))
        for pool, each in state.pools.items()
    ]
    yield _family("switchyard_worker_memory_max_bytes", "Memory of a pool's largest child.", largest, "pool")
    text = "Slots that would keep the pool's promise at the arrivals and durations of the last minute."
    yield _family("switchyard_pool_slots_needed", text, needed_now(declared_yard(), state).items(), "pool")
    text = "Children restarted since the pool's supervisor started, by reason."
    restarts = [(pool, *one) for pool, each in state.pools.items() for one in sorted(each.restarts.items())]
    yield _family("switchyard_worker_restarts", text, restarts, "pool", "reason", kind=CounterMetricFamily)


log = get_logger(__name__)

UNREADABLE = (OSError, ValueError, struct.error, RuntimeError)


class WorkerMetrics:
    """Collector of the workers' counters and histograms, of a folder with one for each pool."""

    def __init__(self, metrics_dir: Path) -> None:
        self._metrics_dir = metrics_dir

    def collect(self) -> list[Metric]:
        with undisturbed(folder for folder in self._metrics_dir.glob("*") if folder.is_dir()):
            files = sorted(str(path) for path in self._metrics_dir.glob("*/*.db"))
            try:
                merged = list(MultiProcessCollector.merge(files))
            except UNREADABLE:
                # A child that is starting is still creating its files.
                merged = list(MultiProcessCollector.merge([file for file in files if _readable(file)]))
        return [family for family in merged if family.name not in (OWNER_ATTEMPTS, OWNER_SECONDS)]


def _readable(file: str) -> bool:
    try:
        list(MmapedDict.read_all_values_from_file(file))
    except UNREADABLE as error:
        log.info("metrics file left out of this scrape", file=Path(file).name, error=type(error).__name__)
        return False
    return True
