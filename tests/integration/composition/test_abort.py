"""``dramatiq-abort``: a project's own middleware and backend beside ours, and the one that cancels jobs."""

import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq_abort import Abort, Abortable, abort, abort_requested
from dramatiq_abort.backends import RedisBackend

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.aborting import CancelAbortable
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

WAIT_S = 60


@pytest.fixture(params=["own", "cancels"])
def either(request, yard_broker, valkey_url) -> Iterator[Any]:
    """A broker with the package's own middleware, and one with ours in its place."""
    listed = CancelAbortable() if request.param == "cancels" else Abortable(backend=RedisBackend.from_url(valkey_url))
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
