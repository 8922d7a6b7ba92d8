"""Arguments and results on a real broker: with types, refused, retried; into steps and callbacks of a job."""

import datetime
import functools
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import dramatiq
import pytest
from django.db import transaction
from dramatiq import Message

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.topology import Yard
from switchyard.jobs.services import enqueue_on_commit, submit
from switchyard.middleware.errors import ArgumentMismatch, LockTaken, RetryLater
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.integration.middleware.conftest import Work
from tests.unit.broker.queue.arguments.kinds import Colour, Line, Order, told
from tests.waiting import wait_for

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


def test_a_retry_carries_the_same_json(shop):
    shop.fail.send(ORDER, 2)

    assert shop.work_off(3) == [ORDER] * 3


def test_each_step_of_a_pipeline_gets_its_types(shop):
    steps = [shop.tomorrow.message(DAY), shop.tomorrow.message(), shop.remind.message(price=Decimal(2))]
    dramatiq.pipeline(steps, broker=shop.broker).run()

    assert shop.work_off(3) == [DAY, DAY.replace(day=2), (DAY.replace(day=3), Decimal(2), None)]


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
        r"tomorrow\(due.*test_follow_ups.py:\d+"
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


def test_a_failed_job_keeps_the_json_of_its_arguments_in_its_dead_letter(shop):
    letter = shop.letter_of(shop.fail.send_with_options(args=(ORDER, 9), max_retries=0))

    assert letter.message["args"][0]["lines"][0]["price"] == "9.90"
    assert told(shop.got[0]) == told(ORDER)


def test_a_unique_key_is_made_of_what_the_actor_gets(shop):
    first = shop.keyed.send(AT)

    second = shop.keyed.send("2026-05-01T12:30:00Z")

    assert second.message_id == first.message_id
    assert [type(key) for key in shop.keys] == [datetime.datetime] * 2
