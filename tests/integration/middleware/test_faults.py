"""Messages survive a fault between the end of their task and their acknowledgement."""

from __future__ import annotations

import contextvars
import threading
import time
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.embedded.server import EmbeddedServer
from switchyard.wiring import build_yard
from tests.conftest import BuildBroker
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.integration.middleware.flaky import runs_until_success
from tests.waiting import wait_for


class SlowOnce(Middleware):
    """Added by a project, so its after-hook runs first, while the time limit still counts."""

    def __init__(self) -> None:
        self.was_slow = False

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if not self.was_slow:
            self.was_slow = True
            for _ in range(200):
                time.sleep(0.01)


@pytest.mark.parametrize("fails", [True, False])
def test_a_time_limit_that_fires_in_a_hook_loses_neither_message_nor_thread(
    yard_broker: BuildBroker, run_worker: Any, fails: bool
) -> None:
    broker = yard_broker(small_yard(soft_limit_ms=200), extra=[SlowOnce()])
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def once_broken() -> None:
        runs.append(1)
        if fails and len(runs) == 1:
            raise RuntimeError("the first time")

    with run_worker(broker=broker, threads=1) as worker:
        job_id = once_broken.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")
        alive = [thread.is_alive() for thread in worker.workers]

    assert alive == [True]
    assert len(runs) == (2 if fails else 1)


class Interrupting(Middleware):
    """Leaves its first after-hook with what is no ``Exception``, as a timeout of gevent does."""

    interrupted = False

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is not None and not self.interrupted:
            self.interrupted = True
            raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_message_whose_end_is_interrupted_is_retried(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(), extra=[Interrupting()])
    assert runs_until_success(broker, run_worker) == 2


def test_a_broker_that_is_away_holds_a_dead_letter_until_it_is_back(
    yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(small_yard(max_retries=0))
    family = broker.families["work"]
    dead_letter, refused = family.dead_letter, []

    def away_thrice(*call: Any) -> bool:
        if len(refused) < 3:
            refused.append(1)
            raise BrokerUnavailable("dead_letter", "connection refused")
        return dead_letter(*call)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    monkeypatch.setattr(family, "dead_letter", away_thrice)

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker):
        job_id = broken.send().message_id
        wait_for(lambda: facilities(broker).transport.find_dead_letter("work", job_id))
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert len(refused) == 3
    assert facilities(broker).records.read(job_id).state == "dead"


def test_a_job_with_a_rate_limit_waits_for_a_broker_that_is_away_without_an_attempt(
    yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(small_yard(max_retries=0))
    windows, away = facilities(broker).windows, [1, 1, 1]
    reserve = windows.reserve

    def away_thrice(*window: Any, **how: Any) -> int:
        if away:
            away.pop()
            raise BrokerUnavailable("reserve", "connection refused")
        return reserve(*window, **how)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    monkeypatch.setattr(type(windows), "reserve", lambda self, *window, **how: away_thrice(*window, **how))

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit="5/s")
    def limited() -> None: ...

    with run_worker(broker=broker):
        job_id = limited.send().message_id
        record = wait_for(lambda: (found := facilities(broker).records.read(job_id)) and found.ended and found)

    assert (record.state, record.attempts, away) == ("succeeded", 1, [])


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("a text of an error that cannot be made")


def test_an_exception_whose_text_cannot_be_made_is_a_dead_letter(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(max_retries=1))

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        raise Unprintable

    with run_worker(broker=broker):
        job_id = broken.send().message_id
        letter = wait_for(lambda: facilities(broker).transport.find_dead_letter("work", job_id))
        wait_for(lambda: facilities(broker).records.read(job_id).ended)

    record = facilities(broker).records.read(job_id)
    assert (letter.exception, letter.attempts) == ("Unprintable", 2)
    assert record.error["type"] == "Unprintable"


def test_a_result_that_is_no_json_ends_the_job_nevertheless(broker: RedisBroker, run_worker: Any) -> None:

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def answer() -> set[int]:
        return {42}

    with run_worker(broker=broker):
        job_id = answer.send().message_id
        record = wait_for(lambda: _ended(broker, job_id))

    assert (record.state, record.result) == ("succeeded", None)
    assert record.error["type"] == "ResultNotStored"


def test_a_broker_that_is_away_at_the_end_of_a_job_loses_neither_state_nor_result(
    broker: RedisBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = facilities(broker).records
    write, refused = records.write, threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def answer() -> int:
        def away_once(steps: Any) -> Any:
            if not refused.is_set():
                refused.set()
                raise BrokerUnavailable("a job's record", "connection refused")
            return write(steps)

        monkeypatch.setattr(records, "write", away_once)
        return 42

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    with run_worker(broker=broker):
        job_id = answer.send().message_id
        record = wait_for(lambda: _ended(broker, job_id))

    assert refused.is_set()
    assert (record.state, record.result) == ("succeeded", 42)


def test_a_broker_that_is_away_holds_the_next_step_of_a_pipeline(
    broker: RedisBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = broker.families["work"]
    enqueue, refused, done = family.enqueue, threading.Event(), threading.Event()

    def away_once(entries: tuple[Entry], **options: Any) -> list[str]:
        if entries[0].body.startswith(b'{"actor":"second"') and not refused.is_set():
            refused.set()
            raise BrokerUnavailable("enqueue", "connection refused")
        return enqueue(entries, **options)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    monkeypatch.setattr(family, "enqueue", away_once)

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> int:
        return 1

    @dramatiq.actor(broker=broker, queue_name="work")
    def second(number: int) -> None:
        done.set()

    with run_worker(broker=broker):
        dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        assert done.wait(30)

    assert refused.is_set()


def test_a_running_job_that_was_asked_to_stop_and_lost_its_worker_ends_cancelled(
    broker: RedisBroker, run_worker: Any
) -> None:
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        runs.append(1)

    message = job.send()
    dying = build_yard(small_yard(), broker.client, broker.keys)
    dying.actors = broker.actors
    held = next(dying.consume("work"))
    # In a copied context: the hooks' context variables must not outlive this call, as they end with a worker's thread.
    contextvars.copy_context().run(dying.emit_before, "process_message", held)
    facilities(dying).barrier.flush()  # it is known to run
    asked = cancel(facilities(broker), message.message_id)
    dying.close()  # without an end
    with run_worker(broker=broker):
        record = wait_for(lambda: _ended(broker, message.message_id))
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert asked == "asked"
    assert runs == []
    assert record.state == "cancelled"


def test_a_requeued_job_is_not_cancelled_by_what_was_asked_in_its_last_life(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    ended = threading.Event()

    class LateNews(Middleware):
        """Records written late: a worker fetches a requeued message before its record is written."""

        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.options.get("generation"):
                ended.wait(30)

        def after_ack(self, broker: Any, message: Any) -> None:
            if message.options.get("generation"):
                ended.set()

    broker = yard_broker(small_yard(max_retries=0), extra=[LateNews()])
    records = facilities(broker).records
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            cancel(facilities(broker), sent.message_id)
            raise RuntimeError("before it saw that it was to stop")

    with run_worker(broker=broker):
        sent = broken_once.message()
        broker.enqueue(sent)
        wait_for(lambda: _ended(broker, sent.message_id))
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        requeue(facilities(broker).transport, "work", sent.message_id)
        wait_for(ended.is_set)

    assert len(runs) == 2
    assert records.read(sent.message_id).state == "succeeded"


def _ended(broker: RedisBroker, job_id: str) -> Any:
    record = facilities(broker).records.read(job_id)
    return record if record and record.ended else None


def test_a_full_server_takes_the_end_of_a_job(tmp_path: Path, run_worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    with EmbeddedServer(tmp_path / "valkey") as server:
        broker = build_yard(small_yard(), connect(server.url), Keys("full"))

        @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
        def fills() -> int:
            broker.client.config_set("maxmemory", 1)
            return 42

        with run_worker(broker=broker):
            job_id = fills.send().message_id
            record = wait_for(lambda: _ended(broker, job_id))
            broker.client.config_set("maxmemory", 0)
            wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert (record.state, record.result) == ("succeeded", 42)
