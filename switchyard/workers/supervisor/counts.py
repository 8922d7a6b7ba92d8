"""Counts of a pool's children for the facts, read every 10 s from their metrics files, which outlast a killed child."""

from __future__ import annotations

import json
import logging
import struct
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from switchyard.broker.errors import BrokerError
from switchyard.broker.stores import yard_facts as facts
from switchyard.middleware.metrics import BUCKETS_S, MOST_HOSTS, OWNER_ATTEMPTS, OWNER_SECONDS, BoundedLabels

FLUSH_S: Final = 10.0
KINDS: Final = ("counter", "histogram")
WAIT, RUN = "switchyard_message_wait_seconds", "switchyard_message_duration_seconds"
# Code of the sum, and of the first class, of each histogram.
HISTOGRAMS: Final = {WAIT: (facts.WAIT_MS, facts.WAITS), RUN: (facts.RUN_MS, facts.RUNS)}
# Code of each counter, and its factor: of actors alone, for the room that they take.
COUNTERS: Final = {
    "switchyard_message_processor_seconds": (facts.PROCESSOR_MS, 1_000),
    "switchyard_message_sql_seconds": (facts.SQL_MS, 1_000),
    "switchyard_message_log_bytes": (facts.LOG_BYTES, 1),
    "switchyard_memory_growth_bytes": (facts.GROWN_BYTES, 1),
}
CALLS: Final = {"answered": facts.SUCCEEDED, "failed": facts.RETRIED}
# Counts by subjects and code: lane and actor, or an actor, a dependency or an owner alone.
Totals = Mapping[tuple[tuple[str, ...], int], int]

logger = logging.getLogger("switchyard.workers")


class CountFlush:
    """Flush of a pool's counts, in a folder's metrics files, to the facts. ``member`` is the supervisor's name."""

    def __init__(self, folder: Path, *, pool: str, release: str, member: str, store: facts.FactStore) -> None:
        self._folder, self._member, self._store = folder, member, store
        self._own = [facts.YARD, f"p:{pool}", *([f"r:{release}"] if release else [])]
        self._counts: dict[Path, Totals] = {}  # of each file, when it was last read
        self._hosts = BoundedLabels(MOST_HOSTS)  # of all children, each of which counts other ones by name
        self._flushed: Totals = {}
        # A flush without an answer is repeated as it was: the server may have added it.
        self._pending: dict[str, facts.Counts] = {}
        self._number = time.time_ns() // 1_000_000
        self._next_s = time.monotonic() + FLUSH_S

    def work(self) -> None:
        """Flush when it is due."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + FLUSH_S
            self.flush()

    def flush(self) -> bool:
        """Add what was counted since the last flush to the facts; return whether all of it is there."""
        try:
            if self._pending and not self._add():
                return False
            totals = self.totals()
            grown = {key: count - self._flushed.get(key, 0) for key, count in totals.items()}
            self._flushed = totals
            self._pending = self._by_subject({key: count for key, count in grown.items() if count > 0})
            return not self._pending or self._add()
        except BrokerError as error:  # with the report it is logged, and the next flush repeats it
            logger.debug("facts are flushed later: %s", error.kind)
            return False

    def totals(self) -> Totals:
        """Return what all processes of the pool counted, ended ones included."""
        found: dict[Path, Totals] = {}
        total: Counter[tuple[tuple[str, ...], int]] = Counter()
        for kind in KINDS:
            for path in self._folder.glob(f"{kind}_*.db"):
                try:
                    found[path] = counts_in(path)
                except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, struct.error):
                    found[path] = self._counts.get(path, {})  # it is being made, or another program wrote it
                total.update(found[path])
        self._counts = found
        return total

    def _add(self) -> bool:
        if self._store.add(self._member, self._number, self._pending):
            self._number, self._pending = self._number + 1, {}
            return True
        return False

    def _by_subject(self, counts: Totals) -> dict[str, facts.Counts]:
        subjects: dict[str, dict[int, int]] = {}
        for (named, code), count in counts.items():
            if facts.is_host(named[0]):
                named = (" ".join(self._hosts.bounded(*named[0].split(" ", 1))),)
            for subject in (*named, *self._own) if len(named) > 1 else named:
                of_subject = subjects.setdefault(subject, {})
                of_subject[code] = of_subject.get(code, 0) + count
        return facts.with_fewer_owners(subjects)


def counts_in(path: Path) -> Totals:
    """Return the counts in one file of prometheus-client."""
    counts: Counter[tuple[tuple[str, ...], int]] = Counter()
    for name, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
        if (found := _key_of(name)) is not None:
            key, factor = found
            counts[key] += int(value * factor)
    return counts


@cache
def _key_of(name: str) -> tuple[tuple[tuple[str, ...], int], float] | None:
    """Return what a value of a file counts, and its factor; ``None`` for other metrics."""
    family, metric, labels, *_ = json.loads(name)
    where = facts.queue_subject(labels.get("queue", "")), facts.actor_subject(labels.get("actor", ""))
    if metric.endswith("_total"):
        outcome = labels.get("outcome", "")
        if family == "switchyard_messages" and (code := facts.OUTCOMES.get(outcome)) is not None:
            return (where, code), 1
        if family == "switchyard_dependency_calls":
            return ((facts.dependency_subject(labels["dependency"]),), CALLS[outcome]), 1
        if family == OWNER_ATTEMPTS:
            return ((facts.owner_subject(labels["owner"]),), facts.OUTCOMES[outcome]), 1
        if family == OWNER_SECONDS:
            return ((facts.owner_subject(labels["owner"]),), facts.RUN_MS), 1_000
        if family == "switchyard_dependency_host_calls":
            return ((f"{facts.dependency_subject(labels['dependency'])} {labels['host']}",), CALLS[outcome]), 1
        if family in COUNTERS:
            code, factor = COUNTERS[family]
            return (where[1:], code), factor
        return None
    if family not in HISTOGRAMS:
        return None
    total, first = HISTOGRAMS[family]
    if metric.endswith("_sum"):
        return (where, total), 1_000
    if metric.endswith("_bucket"):
        return (where, first + min(bisect_left(BUCKETS_S, float(labels["le"])), facts.CLASSES - 1)), 1
    return None
