"""Jobs of which some run at once by a key, or one after the other, and the audit of what ran beside what."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE

AT_ONCE = 5


def declare_limited_jobs(broker: Broker, ledger: Ledger) -> Any:
    """Return the actors ``limited``, five at once of each key, and ``ordered``, one after the other."""

    def run(job: str, ms: int) -> None:
        ledger.note("started", job)
        time.sleep(ms / 1000)
        ledger.note("completed", job)

    @dramatiq.actor(broker=broker, queue_name=QUEUE, concurrency=f"{AT_ONCE} per key")
    def limited(key: str, job: str, ms: int) -> None:
        run(job, ms)

    @dramatiq.actor(broker=broker, queue_name=QUEUE, ordered_by="key")
    def ordered(key: str, job: str, ms: int) -> None:
        run(job, ms)

    return SimpleNamespace(limited=limited, ordered=ordered)


def key_of(job: str) -> str:
    """Return the key of a job, whose name is ``<key>.<number>``."""
    return job.partition(".")[0]


def most_at_once(ledger: Ledger, died_s: Mapping[int, float]) -> Counter[str]:
    """Return by key how many of its jobs ran at once. A run ends with its job, or before its process was killed."""
    running: dict[tuple[str, int], float] = {}
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for entry in ledger.entries():
        if entry.phase == "started":
            running[entry.job, entry.pid] = entry.at_s
        elif entry.phase == "completed":
            changes[key_of(entry.job)] += [(running.pop((entry.job, entry.pid)), 1), (entry.at_s, -1)]
    for (job, pid), began_s in running.items():
        changes[key_of(job)] += [(began_s, 1), (max(died_s[pid], began_s), -1)]
    most: Counter[str] = Counter()
    for key, steps in changes.items():
        now = 0
        for _, step in sorted(steps):
            now += step
            most[key] = max(most[key], now)
    return most


def first_starts(ledger: Ledger, key: str) -> list[int]:
    """Return the numbers of a key's jobs in the order of their first starts."""
    started = dict.fromkeys(job for job in ledger.jobs("started") if key_of(job) == key)
    return [int(job.partition(".")[2]) for job in started]
