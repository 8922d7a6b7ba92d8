"""Metrics of a pool: the tasks of all its children, and the children themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from switchyard.broker.cores import memory_here
from switchyard.broker.stores.pool_reports import PoolReport


class PoolCollector(Collector):
    """Reports of this machine's supervisors as metrics. Several reports of one pool, from several hosts, add up.

    Args:
        memory_bytes: Pool -> memory of its children; pools that are not in it show the sum of their reports.
    """

    def __init__(self, reports: Iterable[PoolReport], memory_bytes: dict[str, int] | None = None) -> None:
        self._reports = list(reports)
        self._memory = memory_bytes or {}

    def collect(self) -> Iterator[Metric]:
        """Yield the worker metrics."""
        up = GaugeMetricFamily("switchyard_worker_up", "1 while the pool has a child that works.", labels=["pool"])
        slots = GaugeMetricFamily("switchyard_worker_slots", "Messages that the pool can run at once.", labels=["pool"])
        busy = GaugeMetricFamily("switchyard_worker_slots_busy", "Messages that the pool runs now.", labels=["pool"])
        memory = GaugeMetricFamily(
            "switchyard_worker_memory_bytes", "Memory of the pool's children, shared pages split.", labels=["pool"]
        )
        limit = GaugeMetricFamily(
            "switchyard_worker_memory_limit_bytes", "Memory limit of the pool's container, if any.", labels=["pool"]
        )
        restarts = CounterMetricFamily(
            "switchyard_worker_restarts", "Children that ended and were started again.", labels=["pool", "reason"]
        )
        for pool, reports in sorted(self._by_pool().items()):
            children = [child for report in reports for child in report.children]
            up.add_metric([pool], float(any(child["ready"] for child in children)))
            slots.add_metric([pool], sum(report.slots for report in reports))
            busy.add_metric([pool], sum(report.busy for report in reports))
            reported = sum(child["rss_bytes"] for child in children)
            memory.add_metric([pool], self._memory.get(pool, reported))
            if (limit_bytes := memory_here()) is not None:
                limit.add_metric([pool], limit_bytes)
            reasons = {reason for report in reports for reason in report.restarts}
            for reason in sorted(reasons):
                restarts.add_metric([pool, reason], sum(report.restarts.get(reason, 0) for report in reports))
        yield from (up, slots, busy, memory, limit, restarts)

    def _by_pool(self) -> dict[str, list[PoolReport]]:
        found: dict[str, list[PoolReport]] = {}
        for report in self._reports:
            found.setdefault(report.pool, []).append(report)
        return found


class ChildrenCollector(Collector):
    """Counts and times of one pool's children, ended ones included, from their multiprocess files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the merged metrics. A file that a child is creating is left for the next scrape."""
        files = [str(path) for path in sorted(self._folder.glob("*.db")) if _is_readable(path)]
        yield from MultiProcessCollector.merge(files)


def exposition(folder: Path, report: PoolReport, memory_bytes: int) -> bytes:
    """Return a pool's metrics as Prometheus text.

    Args:
        folder: With the children's files.
        memory_bytes: Of the children, now.
    """
    registry = CollectorRegistry()
    registry.register(ChildrenCollector(folder))
    registry.register(PoolCollector([report], {report.pool: memory_bytes}))
    return generate_latest(registry)


def _is_readable(path: Path) -> bool:
    # A child creates an empty file and then sets its size.
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
