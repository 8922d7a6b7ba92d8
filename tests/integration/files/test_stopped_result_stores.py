"""Each store of results stopped while jobs run: all end, all results are found, and none waits longer than 2 s."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.core.files.storage import storages
from django.db import connections
from django.db.utils import ConnectionHandler

from project import database
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.result_stores import LARGE_BYTES
from switchyard.files.addresses import address_of
from switchyard.jobs.models import StoredResult
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.postgres import PostgresUnderTest
from tests.factories.s3 import S3Server
from tests.factories.yards import small_yard
from tests.integration.files.timed_stores import TimedStores, stores_at, url_of
from tests.table_locks import writes_held
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]
# Number of jobs, and the longest time that one may wait for its store: promised are 2 s.
COUNTS = [(100, 10.0), pytest.param(1000, 2.0, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
# As many as a process has threads for one store: all of them may wait for one that hangs.
THREADS = 8


@dataclass(frozen=True)
class Fault:
    """Stores of which one can be stopped.

    Args:
        stopped: Stops it for a block.
        kinds: The one that is stopped, and the one that takes over; "" is the record.
        bytes_each: Of a result, at least.
    """

    stores: TimedStores
    stopped: Callable[[], AbstractContextManager[Any]]
    kinds: set[str]
    bytes_each: int = 0


@contextlib.contextmanager
def between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with the table of results, which is the default database of threads that begin now."""
    with PostgresUnderTest() as server:
        entry = database.declared(server.url, bounced=False, state_dir=tmp_path)
        handler = ConnectionHandler({"default": entry})
        with handler["default"].schema_editor() as editor:
            editor.create_model(StoredResult)
        handler["default"].close()
        monkeypatch.setitem(connections.settings, "default", handler.settings["default"])
        yield server


@pytest.fixture
def fault(name: str, request: pytest.FixtureRequest, settings: Any) -> Iterator[Fault]:
    """A fault by its name: a kind of stores, and what becomes of the first."""
    kind, what = name.split()
    if name == "database locked":
        yield Fault(stores_at("database:"), lambda: writes_held(StoredResult), {"database", ""})
        return
    if kind == "database":
        postgres: PostgresUnderTest = request.getfixturevalue("postgres")
        stopped = partial(between, postgres.stop, postgres.start) if what == "ended" else postgres.standing_still
        yield Fault(stores_at("database:"), stopped, {"database", ""})
        return
    server: S3Server = request.getfixturevalue("own_s3_server")
    with FaultProxy(server.port) as proxy:  # the server keeps its objects only as long as it runs
        stopped = partial(between, proxy.refuse, proxy.pass_) if what == "refuses" else server.hanging
        url = url_of(server.bucket(), f"http://{proxy.host}:{proxy.port}")
        if kind == "s3":
            yield Fault(stores_at(url), stopped, {"s3", ""})
            return
        settings.STORAGES = {**settings.STORAGES, "default": address_of("TEST", url).entry}
        settings.MEDIA_ROOT = "/nonexistent"
        assert storages["default"].bucket  # the import of its client alone may take longer than a job waits
        yield Fault(stores_at(""), stopped, {"storage", "database"}, LARGE_BYTES)


@pytest.mark.parametrize(("jobs", "longest_s"), COUNTS)
@pytest.mark.parametrize(
    "name",
    [
        *("database ended", "database stands-still", "s3 hangs", "storage refuses"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("database locked", "s3 refuses", "storage hangs")),
    ],
)
def test_a_store_that_stops_costs_no_job_and_no_result(
    fault: Fault, name: str, jobs: int, longest_s: float, yard_broker: Callable[..., RedisBroker], run_worker: Any
) -> None:
    stores = fault.stores
    broker = yard_broker(small_yard(), results=stores)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(number: int) -> str:
        return f"{number}:".ljust(fault.bytes_each, "x")

    messages = [returns.send(number) for number in range(jobs)]
    records = facilities_of(broker).records
    with run_worker(broker=broker, threads=THREADS), contextlib.ExitStack() as stopping:
        wait_for(lambda: len(stores.places) >= jobs // 5, 60)
        stopping.enter_context(fault.stopped())
        at_stop = len(stores.places)
        wait_for(lambda: len(stores.places) >= at_stop + (jobs - at_stop) // 2, 60)
        stopping.close()
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in messages), 120)
    places = [str(place).partition(":")[0] for place in stores.places]
    print(f"{name}: {jobs} jobs, longest wait {stores.longest_s:.2f} s, {dict(Counter(places))}")

    assert len(stores.places) == jobs
    assert stores.kinds() >= fault.kinds
    assert stores.longest_s < longest_s
    found = [message.get_result(backend=broker.get_results_backend()) for message in messages]
    assert found == [f"{number}:".ljust(fault.bytes_each, "x") for number in range(jobs)]
