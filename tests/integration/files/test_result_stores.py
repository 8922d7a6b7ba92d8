"""Results in each store, and each store stopped while jobs run: all end, all results are found, none waits 2 s."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from apps.platform.files.addresses import StorageAddress
from apps.platform.files.result_addresses import results_of
from apps.platform.history.writer import HistoryWriter
from apps.platform.jobs.models import StoredResult
from apps.platform.jobs.queries import find_known
from apps.platform.jobs.result_stores.chosen import result_stores
from broker.errors import ResultStoreUnavailable
from broker.interface import facilities as facilities_of
from broker.redis_broker import RedisBroker
from broker.stores.result_stores import LARGE_BYTES, ResultStores
from tests.factories.s3 import S3Server
from tests.factories.yards import small_yard
from tests.table_locks import writes_held
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True)]
WAIT_MS = 60_000

BuildBroker = Callable[..., RedisBroker]


class TimedStores:
    """Stores of results with the longest time that a job waited for them."""

    def __init__(self, stores: ResultStores) -> None:
        self.stores = stores
        self.limit_bytes = stores.limit_bytes
        self.load, self.prepare = stores.load, stores.prepare
        self.longest_s = 0.0
        self.places: list[str | None] = []

    def keep(self, job_id: str, text: str, *, keep_ms: int = 0) -> str | None:
        began_s = time.monotonic()
        place = self.stores.keep(job_id, text, keep_ms=keep_ms)
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        self.places.append(place)
        return place

    def kinds(self) -> set[str]:
        """Return the names of the stores that were used, "" for records."""
        return {str(place).partition(":")[0] for place in self.places}


@pytest.fixture
def media(settings: Any, tmp_path: Any) -> Any:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return tmp_path / "media"


def stores_at(url: str) -> Any:
    return TimedStores(result_stores(results_of("TEST", url)))


def url_of(address: StorageAddress) -> str:
    return f"s3://{address.bucket}/results?endpoint_url={address.endpoint_url}&region=us-east-1&path_style=1"


@pytest.fixture(params=["broker:", "database:", "s3:"])
def stores(request: pytest.FixtureRequest, media: Any) -> Any:
    """The stores of each choice."""
    if request.param == "s3:":
        return stores_at(url_of(request.getfixturevalue("s3_server").bucket()))
    return stores_at(request.param)


def test_small_and_large_results_are_found_in_each_store(
    stores: Any, yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard(), results=stores)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(count: int) -> str:
        return "ä" * count

    small, large, none = returns.send(3), returns.send(LARGE_BYTES), returns.send(0)
    with run_worker(broker=broker):
        kept = broker.get_results_backend()
        found = [one.get_result(backend=kept, block=True, timeout=WAIT_MS) for one in (small, large, none)]

    assert [len(result) for result in found] == [3, LARGE_BYTES, 0]
    assert set(found[1]) == {"ä"}
    record = facilities_of(broker).records.read(large.message_id)
    assert record is not None
    assert record.kept_in
    _close(stores)


def test_a_result_is_found_after_the_record_has_left_the_broker(
    stores: Any, yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(small_yard(), results=stores)
    for module in ("apps.platform.jobs.queries", "apps.platform.history.writer"):
        monkeypatch.setattr(f"{module}.facilities", lambda: facilities_of(broker))

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(count: int) -> str:
        return "ä" * count

    small, large = returns.send(3), returns.send(LARGE_BYTES)
    records = facilities_of(broker).records
    with run_worker(broker=broker):
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in (small, large)))
    HistoryWriter(poll_s=0.01, pause_s=0.02).step()
    monkeypatch.setattr(type(records), "read", lambda self, job_id: None)

    found = [find_known(one.message_id) for one in (small, large)]

    assert [job.result for job in found if job is not None] == ["ä" * 3, "ä" * LARGE_BYTES]
    StoredResult.objects.update(expires_at="2020-01-01T00:00:00Z")
    if stores.kinds() == {"database"}:  # it keeps a result as long as result_ttl says; the history has the job
        assert [job.result for job in map(find_known, (small.message_id, large.message_id)) if job] == [None, None]
    _close(stores)


def test_a_large_result_lies_with_the_result_files(media: Any, yard_broker: BuildBroker, run_worker: Any) -> None:
    stores = stores_at("")
    broker = yard_broker(small_yard(), results=stores)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns() -> str:
        return "x" * (5 * LARGE_BYTES)

    with run_worker(broker=broker):
        found = returns.send().get_result(backend=broker.get_results_backend(), block=True, timeout=WAIT_MS)

    assert len(found) == 5 * LARGE_BYTES

    assert stores.kinds() == {"storage"}
    assert len(list(media.rglob("*.json"))) == 1


def test_expired_rows_leave_the_database_and_are_not_found() -> None:
    stores = result_stores(results_of("TEST", "database:"))
    StoredResult.objects.create(job_id="old", text="1", expires_at="2020-01-01T00:00:00Z")

    assert stores.load("old", "database:") is None
    assert stores.keep("new", "2") == "database:"

    assert list(StoredResult.objects.values_list("job_id", flat=True)) == ["new"]


# Number of jobs, and the longest time that one may wait for its store: promised are 2 s.
COUNTS = [(100, 10.0), pytest.param(1000, 2.0, marks=[pytest.mark.long, pytest.mark.timeout(600)])]


@pytest.mark.parametrize(("jobs", "longest_s"), COUNTS)
@pytest.mark.parametrize("stopped", ["database", "s3", "s3 refuses"])
def test_a_store_that_stops_costs_no_job_and_no_result(
    stopped: str,
    jobs: int,
    longest_s: float,
    media: Any,
    yard_broker: BuildBroker,
    run_worker: Any,
    own_s3_server: S3Server,
) -> None:
    stores = stores_at("database:" if stopped == "database" else url_of(own_s3_server.bucket()))
    broker = yard_broker(small_yard(), results=stores)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(number: int) -> dict[str, int]:
        return {"number": number}

    messages = [returns.send(number) for number in range(jobs)]
    records = facilities_of(broker).records

    def ended() -> int:
        return len(stores.places)

    with run_worker(broker=broker), contextlib.ExitStack() as stopping:
        wait_for(lambda: ended() >= jobs // 5, 60)
        if stopped == "database":
            stopping.enter_context(writes_held(StoredResult))
        elif stopped == "s3":
            stopping.enter_context(own_s3_server.hanging())
        else:
            own_s3_server.stop()
        at_stop = ended()
        wait_for(lambda: ended() >= at_stop + (jobs - at_stop) // 2, 60)
        stopping.close()
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in messages), 120)
    kept = {"" if place == "" else "store" for place in stores.places}

    assert len(stores.places) == jobs
    assert kept == {"", "store"}  # those while it was stopped are in the record
    assert stores.longest_s < longest_s
    found = {}
    for number, message in enumerate(messages):
        with contextlib.suppress(ResultStoreUnavailable):
            found[number] = message.get_result(backend=broker.get_results_backend())
    if stopped == "s3 refuses":  # it has lost its memory: what went to it is lost with it, the rest is found
        assert len(found) >= stores.places.count("")
    else:
        assert found == {number: {"number": number} for number in range(jobs)}
    print(f"{stopped}: {jobs} jobs, longest wait {stores.longest_s:.2f} s, {stores.places.count('')} in records")
    _close(stores)


def _close(stores: Any) -> None:
    """Close the client of a bucket."""
    for store in (stores.stores._made or (0, {}))[1].values():
        if hasattr(store, "_storage"):
            store._storage.close()
