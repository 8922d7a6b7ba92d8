"""``get_result`` from the jobs' records or Dramatiq's own store; ``dramatiq-abort`` with its middleware or ours."""

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, Results, ResultTimeout
from dramatiq.results.backends import RedisBackend
from dramatiq_abort import Abort, Abortable, abort, abort_requested
from dramatiq_abort.backends import RedisBackend as AbortBackend

from switchyard.broker.errors import BrokerUnavailable, ResultNotKept
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores import job_records
from switchyard.broker.stores.job_records import RecordResults
from switchyard.middleware.aborting import CancelAbortable
from tests.factories.brokers import broker_without_server, the_global_broker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

WAIT_MS = 60_000


def returning(value: Any = 1, **options: Any) -> Any:
    """Declare an actor that returns a value, which is kept unless the options say otherwise."""
    return dramatiq.actor(lambda: value, actor_name="one", queue_name="work", **{"store_results": True, **options})


def test_a_result_comes_from_the_jobs_record(broker, run_worker):
    @dramatiq.actor(queue_name="work", store_results=True)
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    sent, none = add.send(1, 2), returning(None).send()
    words = r"actor add: .* has not ended, .*; wait for it with get_result\(block=True"
    with pytest.raises(ResultMissing, match=words):
        sent.get_result()
    with run_worker(broker=broker):
        waited = sent.get_result(block=True, timeout=WAIT_MS), none.get_result(block=True, timeout=WAIT_MS)

    assert isinstance(broker.get_results_backend(), ResultBackend)
    assert waited == ({"sum": 3}, None)
    assert sent.get_result() == {"sum": 3}
    assert sent.get_result(backend=broker.get_results_backend()) == {"sum": 3}


def test_a_message_says_itself_that_its_result_is_kept(broker, run_worker):
    one = returning(store_results=None)
    kept, other = one.send_with_options(store_results=True), one.send()
    with run_worker(broker=broker):
        assert kept.get_result(block=True, timeout=WAIT_MS) == 1
        with pytest.raises(ResultNotKept, match="one: keeps no results, store_results is not set; declare it with"):
            other.get_result()


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize(
    ("options", "words"),
    [({"store_results": None}, "store_results is not set"), ({"track": False}, "keeps no record, track is False")],
)
def test_asking_for_what_is_not_kept_says_so_at_once(broker, options, words, block):
    with pytest.raises(ResultNotKept, match=words) as caught:
        returning(**options).send().get_result(block=block, timeout=600_000)

    assert isinstance(caught.value, ResultTimeout) and isinstance(caught.value, ResultMissing)


def test_a_result_that_is_no_json_is_a_failure_that_says_so(broker, run_worker):
    sent = returning(object()).send()
    with run_worker(broker=broker), pytest.raises(ResultFailure, match="ResultNotStored"):
        sent.get_result(block=True, timeout=WAIT_MS)


def test_a_cancelled_job_has_no_result_and_waiting_for_another_ends_after_its_time(broker):
    one = returning()
    cancelled, sent, began_s = one.send(), one.send(), time.monotonic()
    assert facilities(broker).transport.cancel("work", cancelled.message_id) == "cancelled"

    with pytest.raises(ResultFailure, match="the job is cancelled"):
        cancelled.get_result()
    with pytest.raises(ResultTimeout, match=f"after 120 ms; see manage.py switchyard jobs show {sent.message_id}"):
        sent.get_result(block=True, timeout=120)
    assert time.monotonic() - began_s >= 0.1


def test_a_server_that_is_away_is_said_at_the_end_of_the_time(broker):
    one = returning()
    with broker_without_server():
        for options in ({}, {"block": True, "timeout": 50}):
            with pytest.raises(BrokerUnavailable):
                one.message().get_result(**options)


@pytest.mark.parametrize("where", ["actor", "message"])
def test_a_result_is_kept_for_its_result_ttl(broker, run_worker, monkeypatch, where):
    options = {"result_ttl": 60_000}
    sent = returning(**options).send() if where == "actor" else returning().send_with_options(**options)
    with run_worker(broker=broker):
        assert sent.get_result(block=True, timeout=WAIT_MS) == 1
    now = job_records.now_ms
    monkeypatch.setattr(job_records, "now_ms", lambda: now() + 61_000)

    with pytest.raises(ResultMissing, match="is no longer kept; a longer result_ttl"):
        sent.get_result()


def test_dramatiqs_own_results_work_beside_ours(yard_broker, run_worker, valkey):
    backend = RedisBackend(client=valkey, namespace=f"results-{uuid.uuid4().hex[:8]}")
    listed = yard_broker(small_yard(max_retries=0), extra=[Results(backend=backend)])
    added = yard_broker(small_yard(max_retries=0))
    added.add_middleware(Results(backend=backend))
    for broker in (listed, added):

        @dramatiq.actor(broker=broker, queue_name="work", store_results=True, result_ttl=60_000)
        def add(a: int, b: int) -> int:
            return a + b

        @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
        def broken() -> None:
            raise RuntimeError("no paper")

        with the_global_broker(broker), run_worker(broker=broker):
            sent, failed = add.send(1, 2), broken.send()
            assert broker.get_results_backend() is backend
            assert sent.get_result(block=True, timeout=WAIT_MS) == 3
            assert sent.get_result(backend=backend) == 3
            with pytest.raises(ResultFailure, match="no paper"):
                failed.get_result(block=True, timeout=WAIT_MS)


def test_a_result_is_read_where_its_actor_is_unknown(broker, run_worker, yard_broker):
    @dramatiq.actor(queue_name="work", store_results=True)
    def give(value: int | None) -> int | None:
        return value

    plain = dramatiq.actor(lambda: None, actor_name="plain", queue_name="work")
    sent, none, other = give.send(1), give.send_with_options(args=(None,), store_results=True), plain.send()
    with run_worker(broker=broker):
        wait_for(lambda: all(facilities(broker).records.read(one.message_id).ended for one in (sent, none, other)))
    elsewhere = RecordResults(facilities(broker).records, yard_broker(small_yard()))

    assert elsewhere.get_result(sent) == 1
    assert elsewhere.get_result(none) is None
    with pytest.raises(ResultMissing):
        elsewhere.get_result(other)


def test_a_worker_waits_for_the_result_of_another_job(broker, run_worker):
    one = returning()

    @dramatiq.actor(queue_name="work", store_results=True)
    def asks() -> int:
        return one.send().get_result(block=True, timeout=WAIT_MS) + 1

    with run_worker(broker=broker):
        assert asks.send().get_result(block=True, timeout=WAIT_MS) == 2


WAIT_S = 60


@pytest.fixture(params=["own", "cancels"])
def either(request, yard_broker, valkey_url) -> Iterator[Any]:
    """A broker with the package's own middleware, and one with ours in its place."""
    listed = CancelAbortable() if request.param == "cancels" else Abortable(backend=AbortBackend.from_url(valkey_url))
    broker = yard_broker(small_yard(), extra=[listed])
    with the_global_broker(broker):
        yield broker


class Task:
    """An actor that runs until it is interrupted or released, and notes what interrupted it."""

    def __init__(self, **options: Any) -> None:
        self.started, self.release = threading.Event(), threading.Event()
        self.caught: list[type[BaseException]] = []
        self.requested: list[float | None] = []
        self.ends_when_asked = False
        made = self

        @dramatiq.actor(queue_name="work", store_results=True, **options)
        def task() -> str:
            made.started.set()
            try:
                while not made.release.wait(0.01):
                    if (left_ms := abort_requested()) is not None:
                        made.requested.append(left_ms)
                        if made.ends_when_asked:
                            return "by itself"
            except Abort as error:
                made.caught.append(type(error))
                raise
            return "released"

        self.actor = task


def ends_as(broker: RedisBroker, message: Any, *states: str) -> str:
    """Wait until a job has ended, or has one of these states; return its state."""

    def read() -> str:
        record = facilities(broker).records.read(message.message_id)
        return record.state if record is not None and (record.state in states or record.ended) else ""

    return wait_for(read, WAIT_S)


def test_an_aborted_job_that_waits_never_runs(either, run_worker):
    task = Task()
    sent = task.actor.send()
    abort(sent.message_id)
    with run_worker(broker=either):
        assert ends_as(either, sent) == "cancelled"
    assert not task.started.is_set()


def test_an_aborted_job_that_runs_is_interrupted_and_does_not_run_again(either, run_worker):
    task = Task(abortable=True)
    with run_worker(broker=either):
        sent = task.actor.send()
        assert task.started.wait(WAIT_S)
        assert ends_as(either, sent, "running") == "running"
        abort(sent.message_id)
        assert ends_as(either, sent) == "cancelled"

    [caught] = task.caught
    assert issubclass(caught, Abort)


@pytest.mark.parametrize("either", ["cancels"], indirect=True)
def test_an_aborted_job_may_end_by_itself_within_its_timeout(either, run_worker):
    task = Task()
    task.ends_when_asked = True
    with run_worker(broker=either):
        sent = task.actor.send()
        assert task.started.wait(WAIT_S)
        assert ends_as(either, sent, "running") == "running"
        abort(sent.message_id, abort_timeout=60_000)
        found = sent.get_result(block=True, timeout=WAIT_S * 1_000)

    assert (found, task.caught) == ("by itself", [])
    assert 300 < task.requested[0] <= 2_500
    assert abort_requested(sent.message_id) is None


def test_a_job_that_a_middleware_skips_is_cancelled_and_has_no_result(yard_broker, run_worker):
    class Skips(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise dramatiq.middleware.SkipMessage("not today")

    broker = yard_broker(small_yard(), extra=[Skips()])
    with the_global_broker(broker):
        task = Task()
        sent = task.actor.send()
        with run_worker(broker=broker):
            assert sent.get_result(block=True, timeout=WAIT_S * 1_000) is None

    record = facilities(broker).records.read(sent.message_id)
    assert (record.state, record.reason) == ("cancelled", "skipped")
