"""Options of Dramatiq's own middleware, on our broker with the whole stack."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, Shutdown

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.metrics import Metrics
from tests.conftest import BuildBroker
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def ended(broker: RedisBroker, job_id: str) -> Any:
    """Return the record of a job once it has ended."""
    wait_for(lambda: facilities(broker).records.read(job_id).ended)
    return facilities(broker).records.read(job_id)


def test_a_message_that_is_too_old_expires_is_counted_and_never_runs(broker: RedisBroker, run_worker: Any) -> None:
    runs: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_age=50)
    def report(which: str) -> None:
        runs.append(which)

    sent = {"late": report.send_with_options(args=("late",), delay=100).message_id}
    sent["own"] = report.send_with_options(args=("own",), delay=100, max_age=60_000).message_id
    with run_worker(broker=broker):
        records = {which: ended(broker, job_id) for which, job_id in sent.items()}

    late = records["late"]
    metrics = next(entry for entry in broker.middleware if isinstance(entry, Metrics))
    counted = metrics.messages.labels("work", "report", "expired")._value.get()
    assert (late.state, late.reason, late.attempts, late.started_at) == ("expired", "max_age", 0, None)
    assert records["own"].state == "succeeded"
    assert runs == ["own"]
    assert counted == 1
    assert facilities(broker).transport.stats("work").dead == 0


def test_a_dead_letter_that_a_person_requeues_is_not_too_old(broker: RedisBroker, run_worker: Any) -> None:
    transport, runs = facilities(broker).transport, []

    @dramatiq.actor(broker=broker, queue_name="work", max_age=3_000, max_retries=0)
    def mended() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("not yet")

    with run_worker(broker=broker):
        sent = mended.send()
        wait_for(lambda: transport.stats("work").dead == 1)
        wait_for(lambda: time.time() * 1_000 > sent.message_timestamp + 3_000)  # it is too old
        requeue(transport, "work", sent.message_id)
        wait_for(lambda: facilities(broker).records.read(sent.message_id).state == "succeeded")


def test_after_the_last_retry_the_named_actor_gets_message_and_numbers(broker: RedisBroker, run_worker: Any) -> None:
    told: list[Any] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def give_up(message: dict[str, Any], retries: dict[str, Any]) -> None:
        told.append((message["message_id"], message["args"], message["options"]["retries"], retries))
        assert "RuntimeError: no" in message["options"]["traceback"]

    @dramatiq.actor(broker=broker, queue_name="work", on_retry_exhausted="give_up", throws=KeyError)
    def broken(kind: str) -> None:
        raise KeyError(kind) if kind == "expected" else RuntimeError("no")

    with run_worker(broker=broker):
        job_id = broken.send_with_options(args=("hard",), max_retries=2).message_id
        broken.send("expected")
        wait_for(lambda: told)
        broker.join("work", timeout=60_000)

    assert told == [(job_id, ["hard"], 3, {"retries": 2, "max_retries": 2})]


def test_a_repeated_end_sends_its_callbacks_under_the_same_ids(broker: RedisBroker, run_worker: Any) -> None:
    told: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def tell(message: dict[str, Any], result: Any) -> None:
        told.append(message["message_id"])

    @dramatiq.actor(broker=broker, queue_name="work", on_success="tell")
    def quiet() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        broker.emit_after("process_message", message)  # as by a worker that died before its acknowledgement

    with run_worker(broker=broker):
        job_id = quiet.send().message_id
        broker.join("work", timeout=60_000)

    assert told == [job_id]


def test_an_expected_failure_is_dead_at_once_and_no_error_in_the_log(
    broker: RedisBroker, run_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:

    @dramatiq.actor(broker=broker, queue_name="work", throws=(KeyError,))
    def expected() -> None:
        raise KeyError("gone")

    with caplog.at_level(logging.INFO), run_worker(broker=broker):
        record = ended(broker, expected.send().message_id)

    lines = [line for line in caplog.records if "dead" in line.getMessage()]
    assert (record.state, record.reason, record.attempts) == ("dead", "permanent", 1)
    assert [line.levelname for line in lines] == ["INFO"]


@pytest.mark.parametrize("max_retries", [0, 5])
def test_a_task_that_asks_is_told_of_a_shutdown_and_runs_again(
    broker: RedisBroker, run_worker: Any, max_retries: int
) -> None:
    started, told, runs = threading.Event(), [], []

    @dramatiq.actor(broker=broker, queue_name="work", notify_shutdown=True, max_retries=max_retries)
    def long() -> None:
        runs.append(1)
        started.set()
        if told:
            return
        try:
            for _ in range(500):
                time.sleep(0.01)
        except Shutdown:
            told.append(1)
            raise

    job_id = long.send().message_id
    with run_worker(broker=broker):
        assert started.wait(30)
    with run_worker(broker=broker):
        record = ended(broker, job_id)

    assert (record.state, record.attempts, told, len(runs)) == ("succeeded", 2, [1], 2)


def test_a_running_message_says_how_often_it_was_retried(broker: RedisBroker, run_worker: Any) -> None:
    seen: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=None, min_backoff=1, max_backoff=2)
    def stubborn() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(message.options.get("retries", 0))
        if len(seen) < 8:
            raise RuntimeError("not yet")

    with run_worker(broker=broker):
        record = ended(broker, stubborn.send().message_id)

    assert record.state == "succeeded"
    assert seen == list(range(8))


def test_an_actor_without_a_time_limit_is_interrupted_before_its_process_is_killed(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard(soft_limit_ms=200, max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=None)
    def endless() -> None:
        while True:
            time.sleep(0.01)

    with run_worker(broker=broker):
        sent = endless.send_with_options(time_limit=float("inf"))
        record = ended(broker, sent.message_id)

    assert endless.options["time_limit"] == 380
    assert sent.options["time_limit"] == 380
    assert (record.state, record.reason) == ("dead", "time_limit")
