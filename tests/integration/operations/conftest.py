import time
from collections.abc import Iterator

import pytest
from django.test import Client

from switchyard.broker.interface import Facilities
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.operations import overview
from tests.factories.brokers import broker_without_server
from tests.factories.staff import staff


@pytest.fixture
def broker_away() -> Iterator[None]:
    """The broker does not answer, and this process has not read it before."""
    overview.FACTS.forget()
    with broker_without_server():
        yield


@pytest.fixture
def watcher(db: None) -> Client:
    """A logged-in staff user who may see the operations room."""
    return staff("view_operations", "view_deadletter", "view_alert", name="watcher")


@pytest.fixture
def slow_pool(facilities: Facilities) -> PoolReport:
    """The slow pool reports: two children, one of them busy, one restarted before."""
    now = time.time_ns() // 1_000_000
    children = [{"pid": 2, "ready": True, "busy": 1, "done": 3, "rss_bytes": 151_000_000} for _ in range(2)]
    report = PoolReport(
        pool="slow", host="h", pid=1, kind="processes", slots=2, busy=1, started_at=now, beat_at=now, state="up",
        children=children, restarts={"memory": 1},
    )  # fmt: skip
    facilities.pools.write(report)
    return report
