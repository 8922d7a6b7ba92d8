"""What each pool's supervisor says of itself, for pages, metrics and commands. A report lapses with its supervisor."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import redis

from broker.keys import Keys

REPORT_TTL_MS = 15_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One supervisor's state.

    Args:
        slots: Messages its children can run at once; ``busy``: run now.
        children: One dict each: ``pid``, ``ready``, ``busy``, ``done``, ``rss_bytes``.
        restarts: Reason -> children restarted since the supervisor started.
        started_at, beat_at: Milliseconds since the epoch.
        state: ``starting``, ``up``, ``draining``, or ``paused`` while the broker's keyspace is not the one it knew.
    """

    pool: str
    host: str
    pid: int
    kind: str
    slots: int
    busy: int
    started_at: int
    beat_at: int
    state: str
    children: list[dict[str, Any]] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)
    metrics_port: int = 0
    release: str = ""


class PoolReports:
    """Write and read reports."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def write(self, report: PoolReport) -> None:
        """Write a report; it lapses after 15 s."""
        member = f"{report.pool}:{report.host}:{report.pid}"
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.pool_report(member), json.dumps(asdict(report)), px=REPORT_TTL_MS)
            pipe.sadd(self._keys.pool_reports(), member)
            pipe.execute()

    def remove(self, report: PoolReport) -> None:
        """Take a report back when its supervisor ends."""
        member = f"{report.pool}:{report.host}:{report.pid}"
        self._client.delete(self._keys.pool_report(member))
        self._client.srem(self._keys.pool_reports(), member)

    def read_all(self) -> list[PoolReport]:
        """Return the reports of all live supervisors, by pool and host; forget those that lapsed."""
        index = self._keys.pool_reports()
        members = sorted(str(member, "utf-8") for member in cast("set[bytes]", self._client.smembers(index)))
        if not members:
            return []
        found = cast("list[bytes | None]", self._client.mget([self._keys.pool_report(member) for member in members]))
        lapsed = [member for member, report in zip(members, found, strict=True) if report is None]
        if lapsed:
            self._client.srem(index, *lapsed)
        reports = [_read(report) for report in found if report is not None]
        return [report for report in reports if report is not None]


def _read(data: bytes) -> PoolReport | None:
    try:
        return PoolReport(**json.loads(data))
    except (TypeError, ValueError) as error:  # of another release, while pools are replaced one by one
        logger.warning("a pool's report cannot be read: %s", error)
        return None
