"""Results in each store, small and large, also after the record has left the broker."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.result_stores import LARGE_BYTES
from switchyard.files.addresses import results_of
from switchyard.history.writer import HistoryWriter
from switchyard.jobs.models import StoredResult
from switchyard.jobs.queries import find_known
from switchyard.jobs.results import result_stores
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.integration.files.timed_stores import stores_at, url_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True)]
WAIT_MS = 60_000


@pytest.fixture
def media(settings: Any, tmp_path: Any) -> Any:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return tmp_path / "media"


@pytest.fixture(params=["broker:", "database:", "s3:"])
def stores(request: pytest.FixtureRequest, media: Any) -> Any:
    if request.param == "s3:":
        return stores_at(url_of(request.getfixturevalue("s3_server").bucket()))
    return stores_at(request.param)


def actor_on(broker: RedisBroker) -> Any:
    """Declare an actor whose result has so many characters of two bytes."""
    return dramatiq.actor(
        lambda count: "ä" * count, actor_name="returns", broker=broker, queue_name="work", store_results=True
    )


def test_small_and_large_results_are_found_in_each_store(
    stores: Any, yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard(), results=stores)
    returns = actor_on(broker)

    small, large, none = returns.send(3), returns.send(LARGE_BYTES), returns.send(0)
    with run_worker(broker=broker):
        kept = broker.get_results_backend()
        found = [one.get_result(backend=kept, block=True, timeout=WAIT_MS) for one in (small, large, none)]

    assert [len(result) for result in found] == [3, LARGE_BYTES, 0]
    assert set(found[1]) == {"ä"}
    record = facilities_of(broker).records.read(large.message_id)
    assert record.kept_in


def test_a_result_is_found_after_the_record_has_left_the_broker(
    stores: Any, yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(small_yard(), results=stores)
    for module in ("switchyard.jobs.queries", "switchyard.history.writer"):
        monkeypatch.setattr(f"{module}.facilities", lambda: facilities_of(broker))

    returns = actor_on(broker)
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


def test_a_large_result_lies_with_the_result_files(media: Any, yard_broker: BuildBroker, run_worker: Any) -> None:
    stores = stores_at("")
    broker = yard_broker(small_yard(), results=stores)
    returns = actor_on(broker)

    with run_worker(broker=broker):
        sent = returns.send(5 * LARGE_BYTES)
        found = sent.get_result(backend=broker.get_results_backend(), block=True, timeout=WAIT_MS)

    assert len(found) == 5 * LARGE_BYTES
    assert stores.kinds() == {"storage"}
    assert len(list(media.rglob("*.json"))) == 1


def test_expired_rows_leave_the_database_and_are_not_found() -> None:
    stores = result_stores(results_of("TEST", "database:"))
    StoredResult.objects.create(job_id="old", text="1", expires_at="2020-01-01T00:00:00Z")

    assert stores.load("old", "database:") is None
    assert stores.keep("new", "2") == "database:"

    assert list(StoredResult.objects.values_list("job_id", flat=True)) == ["new"]
