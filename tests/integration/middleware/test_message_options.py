"""Options of messages and actors, ours and Dramatiq's own: which goes first, what it does, what is quarantined."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage, Middleware, Shutdown

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.errors import InvalidOption, UnknownOption
from switchyard.middleware.metrics import Metrics
from switchyard.wiring import build_yard
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for


@pytest.mark.parametrize(("actors", "messages", "attempts"), [(5, 1, 2), (0, 2, 3), (5, 0, 1), (None, 1, 2)])
def test_max_retries_of_a_message_goes_before_its_actors_and_its_queues(
    yard_broker, run_worker, actors, messages, attempts
):
    broker = yard_broker(small_yard(max_retries=4))
    options = {} if actors is None else {"max_retries": actors}

    @dramatiq.actor(broker=broker, queue_name="work", **options)
    def broken() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker):
        job_id = broken.send_with_options(max_retries=messages).message_id
        letter = wait_for(lambda: facilities(broker).transport.find_dead_letter("work", job_id))

    assert (letter.attempts, letter.reason) == (attempts, "exhausted")


@pytest.mark.parametrize("of_actor", [True, False])
def test_track_store_results_and_alert_of_a_message_go_before_its_actors(yard_broker, run_worker, of_actor):
    broker = yard_broker(small_yard(max_retries=0))
    records = facilities(broker).records
    done = threading.Event()
    given: dict[str, Any] = {"track": of_actor, "store_results": of_actor, "alert": of_actor}

    @dramatiq.actor(broker=broker, queue_name="work", **given)
    def answer() -> int:
        done.set()
        return 42

    @dramatiq.actor(broker=broker, queue_name="work", **given)
    def broken() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker):
        tracked = answer.send_with_options(track=True, store_results=not of_actor).message_id
        wait_for(lambda: records.read(tracked).ended)
        done.clear()
        untracked = answer.send_with_options(track=False).message_id
        assert done.wait(30)
        buried = broken.send_with_options(alert=not of_actor).message_id
        wait_for(lambda: facilities(broker).transport.find_dead_letter("work", buried))

    assert records.read(tracked).result == (None if of_actor else 42)
    assert records.read(untracked) is None
    assert bool(facilities(broker).alerts.claim_due()) is not of_actor


def test_a_time_limit_of_a_message_goes_before_its_actors(yard_broker, run_worker):
    broker = yard_broker(small_yard(max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=4_900)
    def endless() -> None:
        while True:
            time.sleep(0.01)

    with run_worker(broker=broker):
        job_id = endless.send_with_options(time_limit=300).message_id
        letter = wait_for(lambda: facilities(broker).transport.find_dead_letter("work", job_id))

    assert letter.reason == "time_limit"
    assert letter.error == "ran for longer than its time_limit of 300 ms"
    assert 300 <= letter.duration_ms < 4_900, "the actor's own limit"
    with pytest.raises(InvalidOption, match=r"time_limit is 10000; .* below the queue's hard limit of 10000 ms"):
        endless.send_with_options(time_limit=10_000)


@pytest.mark.parametrize("delay_s", [10**15, -5])
def test_a_retry_that_asks_for_an_impossible_time_is_tried_again(yard_broker, run_worker, delay_s):
    broker = yard_broker(small_yard(max_retries=1))
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def asks() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise dramatiq.Retry("later", delay=delay_s * 1000)

    with run_worker(broker=broker):
        job_id = asks.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")

    assert len(runs) == 2


def test_options_of_a_pipelines_steps_are_validated_and_honoured(yard_broker, run_worker):
    broker = yard_broker(small_yard(max_retries=3))

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> int:
        return 1

    @dramatiq.actor(broker=broker, queue_name="work")
    def second(number: int) -> None:
        raise RuntimeError("no")

    def chain(*steps: Any) -> dramatiq.pipeline:
        return dramatiq.pipeline(steps, broker=broker)

    wrong = second.message_with_options(max_retries="many")
    actors_own = second.message_with_options(redact=("number",))
    last = second.message_with_options(max_retries=1)
    for refused, error in ((wrong, InvalidOption), (actors_own, UnknownOption)):
        with pytest.raises(error, match="actor second: "):
            chain(first.message(), refused).run()
        with pytest.raises(error, match="actor second: "):
            dramatiq.group([chain(first.message(), refused)], broker=broker).run()
    with run_worker(broker=broker):
        dramatiq.pipeline([first.message(), last], broker=broker).run()
        letter = wait_for(lambda: facilities(broker).transport.find_dead_letter("work", last.message_id))

    assert letter.attempts == 2


def test_a_delay_in_a_messages_options_is_honoured_by_pipelines_and_refused_elsewhere(broker):

    @dramatiq.actor(broker=broker, queue_name="work")
    def later() -> None: ...

    dramatiq.pipeline([later.message_with_options(delay=60_000), later.message()], broker=broker).run()

    assert facilities(broker).transport.stats("work").live.scheduled == 1
    with pytest.raises(InvalidOption, match="delay is 60000; pass it to enqueue"):
        broker.enqueue(later.message_with_options(delay=60_000))
    with pytest.raises(InvalidOption, match="delay is 60000; pass it to enqueue"):
        dramatiq.group([later.message_with_options(delay=60_000)], broker=broker).run()


class Tracing(Middleware):
    """Middleware of a project that writes an option into every message."""

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the option."""
        message.options["trace"] = "a-trace"


class DeclaredTracing(Tracing):
    """The same, declared."""

    @property
    def actor_options(self) -> set[str]:
        """Declare the option."""
        return {"trace"}


@pytest.mark.parametrize("declares", [False, True])
def test_an_option_of_a_projects_own_middleware_is_kept_by_workers_with_it(yard_broker, run_worker, declares):
    broker = yard_broker(small_yard(), extra=[DeclaredTracing() if declares else Tracing()])
    seen: list[str] = []

    def job() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(message.options["trace"])
        if len(seen) == 1:
            raise RuntimeError("retried")

    actor = dramatiq.actor(job, broker=broker, queue_name="work")
    with pytest.raises(UnknownOption, match="message option 'trase'"):
        actor.send_with_options(trase="of the sender")
    with run_worker(broker=broker):
        actor.send()
        wait_for(lambda: len(seen) == 2)

    assert seen == ["a-trace", "a-trace"]


def test_an_option_of_others_is_kept_by_workers_that_do_not_know_it(yard_broker, valkey, run_worker, monkeypatch):
    seen: list[Any] = []

    def job() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(message.options.get("trace"))
        if len(seen) == 1:
            raise RuntimeError("retried by a worker without it")

    plain = Broker.__init__
    # As Sentry's integration does with every broker.
    monkeypatch.setattr(Broker, "__init__", lambda self, middleware=None: plain(self, [Tracing(), *(middleware or ())]))
    sends = yard_broker(small_yard())
    monkeypatch.undo()
    works = build_yard(small_yard(), valkey, sends.keys)
    actor = dramatiq.actor(job, broker=sends, queue_name="work")
    dramatiq.actor(job, broker=works, queue_name="work")

    with pytest.raises(UnknownOption, match="message option 'trase'"):
        actor.send_with_options(trase="of the sender")
    with run_worker(broker=works):
        actor.send()
        wait_for(lambda: len(seen) == 2)

    assert seen == ["a-trace", "a-trace"]


def ended(broker: RedisBroker, job_id: str) -> Any:
    """Return the record of a job once it has ended."""
    wait_for(lambda: facilities(broker).records.read(job_id).ended)
    return facilities(broker).records.read(job_id)


def test_a_message_that_is_too_old_expires_is_counted_and_never_runs(broker, run_worker):
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


def test_a_dead_letter_that_a_person_requeues_is_not_too_old(broker, run_worker):
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
        records = facilities(broker).records
        record = wait_for(lambda: (found := records.read(sent.message_id)).state == "succeeded" and found)

    assert (record.attempts, record.error) == (1, None), "it is a new life"


def test_a_repeated_end_sends_its_callbacks_under_the_same_ids(broker, run_worker):
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


def test_an_expected_failure_is_dead_at_once_and_no_error_in_the_log(broker, run_worker, caplog):

    @dramatiq.actor(broker=broker, queue_name="work", throws=(KeyError,))
    def expected() -> None:
        raise KeyError("gone")

    with caplog.at_level(logging.INFO), run_worker(broker=broker):
        record = ended(broker, expected.send().message_id)

    lines = [line for line in caplog.records if "dead" in line.getMessage()]
    assert (record.state, record.reason, record.attempts) == ("dead", "permanent", 1)
    assert [line.levelname for line in lines] == ["INFO"]


@pytest.mark.parametrize("max_retries", [0, 5])
def test_a_task_that_asks_is_told_of_a_shutdown_and_runs_again(broker, run_worker, max_retries):
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


def test_an_actor_without_a_time_limit_is_interrupted_before_its_process_is_killed(yard_broker, run_worker):
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
