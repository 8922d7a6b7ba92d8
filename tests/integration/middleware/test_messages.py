"""Options, arguments and results of messages: which goes first, with types, refused, retried; steps and callbacks."""

import datetime
import functools
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import dramatiq
import pytest
from django.db import transaction
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage, Middleware, Shutdown

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.topology import Yard
from switchyard.jobs.services import enqueue_on_commit, submit
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption, LockTaken, RetryLater, UnknownOption
from switchyard.middleware.metrics import Metrics
from switchyard.wiring import build_yard
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.integration.middleware.conftest import Work
from tests.unit.broker.queue.arguments.kinds import Colour, Line, Order, told
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
        message.options["trace"] = "a-trace"


class DeclaredTracing(Tracing):
    """The same, declared."""

    @property
    def actor_options(self) -> set[str]:
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


UNSENDABLE = [
    (datetime.date(2026, 1, 1), r"args\[\d\] is a date"),
    ({"of": {1, 2}}, r"args\[\d\]\['of'\] is a set"),
    ("x" * 1_500_000, "bytes or more of at most"),
]


@pytest.fixture
def work(works) -> Work:
    return works(max_retries=2)


def only_letter(work: Work) -> DeadLetter:
    wait_for(lambda: work.stats.dead == 1)
    [letter] = work.transport.dead_letters("work").items
    return letter


@pytest.mark.parametrize(("value", "fault"), UNSENDABLE)
@pytest.mark.parametrize("follows", ["step", "callback"])
def test_a_result_that_what_follows_cannot_take_makes_the_job_a_dead_letter(work, value, fault, follows):
    second = work.actor(lambda *args: None, actor_name="second")
    first = work.actor(lambda: value, actor_name="first")

    with work.run("work"):
        if follows == "step":
            dramatiq.pipeline([first.message(), second.message()], broker=work.broker).run()
        else:
            first.send_with_options(on_success="second")
        letter = only_letter(work)

    assert (letter.actor, letter.reason, letter.exception) == ("first", "permanent", "UnusableResult")
    assert re.search(fault, letter.error)


@pytest.mark.parametrize("altered", [{"message_id": "invoice:events"}, {"message_id": 5}, {"more": 1}])
def test_a_follow_up_that_cannot_be_sent_makes_the_job_a_dead_letter(work, altered):
    first = work.actor(lambda: None, actor_name="first")
    message = first.message()
    message.options["pipe_target"] = {**first.message().asdict(), **altered}
    with work.run("work"):
        work.broker.enqueue(message)
        letter = only_letter(work)

    assert (letter.id, letter.reason, letter.exception) == (message.message_id, "permanent", "UnusableResult")


@pytest.mark.parametrize("follows", ["step", "on_success", "group", "on_failure", "on_retry_exhausted"])
def test_a_follow_up_that_the_broker_refuses_leaves_a_dead_letter_that_says_so(yard_broker, run_worker, follows):
    [queue], pools = small_yard(max_retries=0).queues, small_yard().pools
    pools = (*pools, replace(pools[0], name="other", queues=("other",)))
    broker = yard_broker(Yard(queues=(queue, replace(queue, name="other")), pools=pools))
    work = Work(broker, run_worker)
    second = dramatiq.actor(lambda *args: None, actor_name="second", broker=broker, queue_name="other")

    @work.actor
    def first() -> None:
        if follows in ("on_failure", "on_retry_exhausted"):
            raise ValueError("as it was told to")

    work.records.calls.command("SET", broker.lane("other")[0].keys.bodies, "of another type")
    with work.run("work"):
        if follows == "step":
            dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        elif follows == "group":
            jobs = dramatiq.group([first.message()], broker=broker)
            jobs.add_completion_callback(second.message())
            jobs.run()
        else:
            first.send_with_options(**{follows: "second"})
        letter = only_letter(work)

    assert letter.reason == ("exhausted" if letter.exception == "ValueError" else "permanent")
    assert re.search("was refused: broker refused .*WRONGTYPE", letter.error)


@pytest.mark.parametrize("deferral", [LockTaken("ledger"), RetryLater(0.1, "busy", per="host")])
def test_on_failure_is_sent_for_the_failure_that_follows_a_deferral_and_not_for_that(works, deferral):
    work, runs, told = works(max_retries=0), list[str](), list[str]()

    @work.actor
    def tell(message: dict[str, Any], error: Any) -> None:
        told.append(error["type"])

    @work.actor(on_failure="tell")
    def job(host: str) -> None:
        runs.append(host)
        raise deferral if len(runs) == 1 else ValueError("as it was told to")

    with work.run("work", "work-retry"):
        job.send("one")
        only_letter(work)
        wait_for(lambda: told)
        work.idle()

    assert (runs, told) == (["one", "one"], ["ValueError"])


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function with one that is not async."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def coroutine() -> None:
    """Do nothing."""


def generator() -> Any:
    """Yield what nobody takes."""
    yield 1


async def async_generator() -> Any:
    """Yield what nobody takes."""
    yield 1


@pytest.mark.parametrize("function", [lambda: coroutine(), generator, wrapped(coroutine), wrapped(async_generator)])
def test_a_result_that_nothing_ran_is_a_failure_that_says_what_to_write(work, function):
    letter = work.letter_of(work.actor(function, actor_name="lazy").send())

    assert (letter.reason, letter.exception, letter.attempts) == ("permanent", "UnusableResult", 1)
    assert "which nothing has run; write `async def`" in letter.error


def test_every_attempt_gets_the_arguments_that_were_sent(work):
    seen: list[tuple[list[int], dict[str, int]]] = []
    told: list[dict[str, Any]] = []

    @work.actor
    def tell(message: dict[str, Any], error: Any) -> None:
        told.append(message)

    @work.actor(on_failure="tell")
    def mutates(items: list[int], names: dict[str, int]) -> None:
        seen.append((list(items), dict(names)))
        items.append(2)
        names["b"] = 2
        raise ValueError("as it was told to")

    with work.run("work", "work-retry"):
        mutates.send([1], {"a": 1})
        letter = only_letter(work)
        requeue(work.transport, "work", letter.id)
        wait_for(lambda: len(seen) == len(told) == 6)

    assert seen == [([1], {"a": 1})] * 6
    assert (letter.message["args"], letter.message["kwargs"]) == ([[1], {"a": 1}], {})
    assert [list(message["args"]) for message in told] == [[[1], {"a": 1}]] * 6


DAY = datetime.date(2026, 5, 1)
AT = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
ORDER = Order(DAY, [Line(UUID(int=7), Decimal("9.90"))])


class Shop(Work):
    """Actors with types on a broker of their own, and what they got."""

    def __init__(self, broker: RedisBroker, run_worker: Any) -> None:
        super().__init__(broker, run_worker)
        self.got: list[Any] = []
        self.keys: list[Any] = []

        def remind(due: datetime.date, *, price: Decimal = Decimal(0), colour: Colour | None = None) -> None:
            self.got.append((due, price, colour))

        def fail(order: Order, times: int) -> None:
            self.got.append(order)
            if len(self.got) <= times:
                raise RuntimeError("again")

        def tomorrow(due: datetime.date) -> datetime.date:
            self.got.append(due)
            return due + datetime.timedelta(days=1)

        def keyed(at: datetime.datetime) -> None:
            self.got.append(at)

        self.remind, self.fail, self.tomorrow = map(self.actor, (remind, fail, tomorrow))
        self.keyed = self.actor(keyed, unique_key=lambda at: self.keys.append(at) or f"at:{at:%H}")

    def work_off(self, count: int) -> list[Any]:
        """Run a worker until so many jobs have run; return what they got."""
        with self.run():
            wait_for(lambda: len(self.got) == count)
        return self.got


@pytest.fixture
def shop(yard_broker, run_worker) -> Shop:
    return Shop(yard_broker(small_yard()), run_worker)


def test_values_come_out_with_their_types(shop):
    shop.remind.send(DAY, price=Decimal("1.50"), colour=Colour.RED)
    shop.remind.send_with_options(args=("2026-05-01",), kwargs={"price": "1.50", "colour": "red"}, delay=1)
    shop.broker.enqueue_many([shop.remind.message(DAY, price=Decimal("1.50"), colour=Colour.RED)])

    assert shop.work_off(3) == [(DAY, Decimal("1.50"), Colour.RED)] * 3


def test_a_retry_and_a_dead_letter_carry_the_same_json(shop):
    letter = shop.letter_of(shop.fail.send_with_options(args=(ORDER, 9), max_retries=2))

    assert shop.got == [ORDER] * 3
    assert letter.message["args"][0]["lines"][0]["price"] == "9.90"
    assert told(shop.got[0]) == told(ORDER)


def test_each_step_of_a_pipeline_and_the_callback_of_a_group_get_their_types(shop):
    steps = [shop.tomorrow.message(DAY), shop.tomorrow.message(), shop.remind.message(price=Decimal(2))]
    jobs = dramatiq.group([dramatiq.pipeline(steps, broker=shop.broker)], broker=shop.broker)
    jobs.add_completion_callback(shop.remind.message(DAY))
    jobs.run()

    last = (DAY.replace(day=3), Decimal(2), None)
    assert shop.work_off(4) == [DAY, DAY.replace(day=2), last, (DAY, Decimal(0), None)]


@pytest.mark.parametrize(
    "send",
    [
        lambda actor: actor.send("tomorrow"),
        lambda actor: actor.send_with_options(args=("tomorrow",)),
        lambda actor: actor.broker.enqueue_many([actor.message(DAY), actor.message("tomorrow")]),
        lambda actor: dramatiq.pipeline([actor.message(DAY), actor.message("tomorrow")], broker=actor.broker).run(),
        lambda actor: dramatiq.group([actor.message("tomorrow")], broker=actor.broker).run(),
        lambda actor: submit(actor, "tomorrow"),
        lambda actor: enqueue_on_commit(actor, "tomorrow"),
    ],
)
@pytest.mark.django_db
def test_what_does_not_fit_is_refused_where_it_is_sent_and_nothing_was_sent(shop, send):
    words = (
        r"actor tomorrow: argument due expects datetime.date; this str does not fit; it is declared as "
        r"tomorrow\(due.*test_messages.py:\d+"
    )
    with transaction.atomic(), pytest.raises(ArgumentMismatch, match=words):
        send(shop.tomorrow)

    assert shop.stats.live.waiting == 0


def test_a_message_that_cannot_be_converted_is_a_dead_letter_that_says_which_argument(shop):
    old: Message[Any] = Message("work", "remind", ("tomorrow",), {}, {"enqueued_at": 1})

    letter = shop.letter_of(shop.broker.enqueue(old))

    assert (letter.reason, letter.exception) == ("permanent", "ArgumentMismatch")
    assert "argument due expects datetime.date; this str does not fit; requeue it with other arguments" in letter.error
    assert letter.message["args"] == ["tomorrow"]
    assert shop.got == []
    requeue(shop.transport, "work", old.message_id, arguments=(["2026-05-01"], {}))
    assert shop.work_off(1)[0][0] == DAY


def test_a_unique_key_is_made_of_what_the_actor_gets(shop):
    first = shop.keyed.send(AT)

    assert shop.keyed.send("2026-05-01T12:30:00Z").message_id == first.message_id
    assert [type(key) for key in shop.keys] == [datetime.datetime] * 2
