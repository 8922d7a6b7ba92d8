"""Whether the parts that have no other way to say so are ready."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import redis

from broker.clock import now_ms
from broker.keys.keys import Keys
from broker.redis.connections import connect
from broker.stores.pool_reports import PoolReport, PoolReports
from broker.topology import Yard
from demo.ports import HOST

ANSWER_TIMEOUT_S = 1.0


class PoolsWatch:
    """Reads what the pools say of themselves in the broker.

    Args:
        broker_url: The demo's broker.
        yard: Names the pools that must be up.
    """

    def __init__(self, broker_url: str, yard: Yard) -> None:
        self._reports = PoolReports(connect(broker_url, profile="quick"), Keys())
        self._yard = yard
        self._since_ms = 0

    def expect_new(self) -> None:
        """From now on count only pools that start later: what a killed demo's pools said may not have lapsed yet."""
        self._since_ms = now_ms()

    def read(self) -> list[PoolReport]:
        """Return the newest report of each pool that is there, in the yard's order; none while the broker is down."""
        try:
            found = {report.pool: report for report in self._reports.read_all() if report.started_at >= self._since_ms}
        except redis.RedisError:
            return []
        return [found[pool.name] for pool in self._yard.pools if pool.name in found]

    def missing(self) -> str:
        """Return which pools are not up yet; "" when all are."""
        up = {report.pool for report in self.read() if report.state == "up"}
        lacking = [pool.name for pool in self._yard.pools if pool.name not in up]
        return f"not up: {', '.join(lacking)}" if lacking else ""


def answers(port: int, path: str) -> Callable[[], str]:
    """Return a check that asks a web server on loopback and wants 200."""

    def missing() -> str:
        connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"no answer from {path} ({type(error).__name__})"
        finally:
            connection.close()
        return "" if status == http.HTTPStatus.OK else f"{path} answers {status}"

    return missing
