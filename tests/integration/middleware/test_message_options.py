"""Options of messages and actors, ours and Dramatiq's own: which goes first, what it does, what is quarantined."""

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
from switchyard.middleware.errors import InvalidOption, UnknownOption
from switchyard.middleware.metrics import Metrics
from switchyard.wiring import build_yard
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def fail() -> None:
    raise RuntimeError("no")


def run_endlessly() -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("of_actor", [True, False])
def test_track_store_results_and_alert_of_a_message_go_before_its_actors(works, of_actor):
    work, done = works(max_retries=0), threading.Event()
    given: dict[str, Any] = {"track": of_actor, "store_results": of_actor, "alert": of_actor}
    broken = work.actor(fail, **given)

    @work.actor(**given)
    def answer() -> int:
        done.set()
        return 42

    with work.run():
        tracked = answer.send_with_options(track=True, store_results=not of_actor)
        work.until(tracked)
        done.clear()
        untracked = answer.send_with_options(track=False)
        assert done.wait(30)
        work.letter(broken.send_with_options(alert=not of_actor))

    assert work.read(tracked).result == (None if of_actor else 42)
    assert work.read(untracked) is None
    assert bool(facilities(work.broker).alerts.claim_due()) is not of_actor


def test_a_time_limit_of_a_message_goes_before_its_actors(works):
    work = works(max_retries=0)
    endless = work.actor(run_endlessly, time_limit=4_900)

    letter = work.letter_of(endless.send_with_options(time_limit=300))

    assert letter.reason == "time_limit"
    assert letter.error == "ran for longer than its time_limit of 300 ms"
    assert 300 <= letter.duration_ms < 4_900, "the actor's own limit"
    with pytest.raises(InvalidOption, match=r"time_limit is 10000; .* below the queue's hard limit of 10000 ms"):
        endless.send_with_options(time_limit=10_000)


@pytest.mark.parametrize("delay_s", [10**15, -5])
def test_a_retry_that_asks_for_an_impossible_time_is_tried_again(works, delay_s):
    work = works(max_retries=1)
    runs: list[int] = []

    @work.actor
    def asks() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise dramatiq.Retry("later", delay=delay_s * 1000)

    work.end_of(asks.send(), "succeeded")

    assert len(runs) == 2


def test_options_of_a_pipelines_steps_are_validated_and_honoured(works):
    work = works(max_retries=3)
    first = work.actor(lambda: 1, actor_name="first")

    @work.actor
    def second(number: int) -> None:
        raise RuntimeError("no")

    def chain(*steps: Any) -> dramatiq.pipeline:
        return dramatiq.pipeline(steps, broker=work.broker)

    wrong = second.message_with_options(max_retries="many")
    actors_own = second.message_with_options(redact=("number",))
    last = second.message_with_options(max_retries=1)
    for refused, error in ((wrong, InvalidOption), (actors_own, UnknownOption)):
        with pytest.raises(error, match="actor second: "):
            chain(first.message(), refused).run()
        with pytest.raises(error, match="actor second: "):
            dramatiq.group([chain(first.message(), refused)], broker=work.broker).run()
    chain(first.message(), last).run()

    assert work.letter_of(last).attempts == 2


def test_a_delay_in_a_messages_options_is_honoured_by_pipelines_and_refused_elsewhere(work):
    later = work.actor(lambda: None, actor_name="later")

    dramatiq.pipeline([later.message_with_options(delay=60_000), later.message()], broker=work.broker).run()

    assert work.stats.live.scheduled == 1
    with pytest.raises(InvalidOption, match="delay is 60000; pass it to enqueue"):
        work.broker.enqueue(later.message_with_options(delay=60_000))
    with pytest.raises(InvalidOption, match="delay is 60000; pass it to enqueue"):
        dramatiq.group([later.message_with_options(delay=60_000)], broker=work.broker).run()


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


@pytest.mark.parametrize(
    "of", [Tracing, DeclaredTracing, None], ids=["undeclared", "declared", "unknown to the worker"]
)
def test_an_option_of_others_is_kept_by_workers_with_it_and_by_those_that_do_not_know_it(
    works, valkey, run_worker, monkeypatch, of
):
    seen: list[Any] = []

    def job() -> None:
        seen.append(CurrentMessage.get_current_message().options.get("trace"))
        if len(seen) == 1:
            raise RuntimeError("retried")

    if of is None:
        plain = Broker.__init__
        # As Sentry's integration does with every broker.
        monkeypatch.setattr(
            Broker, "__init__", lambda self, middleware=None: plain(self, [Tracing(), *(middleware or ())])
        )
    sends = works(extra=[of()] if of else ())
    monkeypatch.undo()
    actor, broker = sends.actor(job), sends.broker
    if of is None:
        broker = build_yard(small_yard(), valkey, broker.keys)
        dramatiq.actor(job, broker=broker, queue_name="work")
    with pytest.raises(UnknownOption, match="message option 'trase'"):
        actor.send_with_options(trase="of the sender")
    with run_worker(broker=broker):
        actor.send()
        wait_for(lambda: len(seen) == 2)

    assert seen == ["a-trace", "a-trace"]


def test_a_message_that_is_too_old_expires_is_counted_and_never_runs(work):
    runs: list[str] = []

    @work.actor(max_age=50)
    def report(which: str) -> None:
        runs.append(which)

    late = report.send_with_options(args=("late",), delay=100)
    own = report.send_with_options(args=("own",), delay=100, max_age=60_000)
    with work.run():
        late, own = work.until(late), work.until(own)

    [metrics] = [entry for entry in work.broker.middleware if isinstance(entry, Metrics)]
    assert (late.state, late.reason, late.attempts, late.started_at) == ("expired", "max_age", 0, None)
    assert (own.state, runs) == ("succeeded", ["own"])
    assert metrics.messages.labels("work", "report", "expired")._value.get() == 1
    assert work.stats.dead == 0


def test_a_dead_letter_that_a_person_requeues_is_not_too_old(work):
    runs: list[int] = []

    @work.actor(max_age=3_000, max_retries=0)
    def mended() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("not yet")

    with work.run():
        sent = mended.send()
        wait_for(lambda: work.stats.dead == 1)
        wait_for(lambda: time.time() * 1_000 > sent.message_timestamp + 3_000)  # it is too old
        requeue(work.transport, "work", sent.message_id)
        record = work.until(sent, "succeeded")

    assert (record.attempts, record.error) == (1, None), "it is a new life"


def test_a_repeated_end_sends_its_callbacks_under_the_same_ids(work):
    told: list[str] = []

    @work.actor
    def tell(message: dict[str, Any], result: Any) -> None:
        told.append(message["message_id"])

    @work.actor(on_success="tell")
    def quiet() -> None:
        message = CurrentMessage.get_current_message()
        work.broker.emit_after("process_message", message)  # as by a worker that died before its acknowledgement

    with work.run():
        job_id = quiet.send().message_id
        work.broker.join("work", timeout=60_000)

    assert told == [job_id]


def test_an_expected_failure_is_dead_at_once_and_no_error_in_the_log(work, caplog):
    @work.actor(throws=(KeyError,))
    def expected() -> None:
        raise KeyError("gone")

    with caplog.at_level(logging.INFO):
        record = work.end_of(expected.send())

    lines = [line for line in caplog.records if "dead" in line.getMessage()]
    assert (record.state, record.reason, record.attempts) == ("dead", "permanent", 1)
    assert [line.levelname for line in lines] == ["INFO"]


@pytest.mark.parametrize("max_retries", [0, 5])
def test_a_task_that_asks_is_told_of_a_shutdown_and_runs_again(work, max_retries):
    started, told, runs = threading.Event(), [], []

    @work.actor(notify_shutdown=True, max_retries=max_retries)
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

    sent = long.send()
    with work.run():
        assert started.wait(30)
    record = work.end_of(sent)

    assert (record.state, record.attempts, told, len(runs)) == ("succeeded", 2, [1], 2)


def test_an_actor_without_a_time_limit_is_interrupted_before_its_process_is_killed(works):
    work = works(soft_limit_ms=200, max_retries=0)
    endless = work.actor(run_endlessly, time_limit=None)
    sent = endless.send_with_options(time_limit=float("inf"))

    record = work.end_of(sent)

    assert endless.options["time_limit"] == sent.options["time_limit"] == 380
    assert (record.state, record.reason) == ("dead", "time_limit")
