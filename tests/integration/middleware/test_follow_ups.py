"""Arguments and results on a real broker: with types, refused, retried; into steps and callbacks of a job."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import dramatiq
import pytest
from django.db import transaction
from dramatiq import Message
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.topology import Yard
from switchyard.jobs.services import enqueue_on_commit, submit
from switchyard.middleware.errors import ArgumentMismatch, LockTaken, RetryLater
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.unit.broker.queue.arguments.kinds import Colour, Line, Order, told
from tests.waiting import wait_for

UNSENDABLE = [
    (datetime.date(2026, 1, 1), r"args\[\d\] is a date"),
    ({"of": {1, 2}}, r"args\[\d\]\['of'\] is a set"),
    ("x" * 1_500_000, "bytes or more of at most"),
]


@pytest.fixture
def broker(yard_broker) -> RedisBroker:
    return yard_broker(small_yard(max_retries=2))


def only_letter(broker: Broker) -> DeadLetter:
    transport = facilities(broker).transport
    wait_for(lambda: transport.stats("work").dead == 1)
    [letter] = transport.dead_letters("work").items
    return letter


@pytest.mark.parametrize(("value", "fault"), UNSENDABLE)
@pytest.mark.parametrize("follows", ["step", "callback"])
def test_a_result_that_what_follows_cannot_take_makes_the_job_a_dead_letter(broker, run_worker, value, fault, follows):
    @dramatiq.actor(broker=broker, queue_name="work")
    def second(*args: Any) -> None: ...

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> Any:
        return value

    with run_worker("work", broker=broker):
        if follows == "step":
            dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        else:
            first.send_with_options(on_success="second")
        letter = only_letter(broker)

    assert (letter.actor, letter.reason, letter.exception) == ("first", "permanent", "UnusableResult")
    assert re.search(fault, letter.error)


@pytest.mark.parametrize("altered", [{"message_id": "invoice:events"}, {"message_id": 5}, {"more": 1}])
def test_a_follow_up_that_cannot_be_sent_makes_the_job_a_dead_letter(broker, run_worker, altered):
    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> None: ...

    message = first.message()
    message.options["pipe_target"] = {**first.message().asdict(), **altered}
    with run_worker("work", broker=broker):
        broker.enqueue(message)
        letter = only_letter(broker)

    assert (letter.id, letter.reason, letter.exception) == (message.message_id, "permanent", "UnusableResult")


@pytest.mark.parametrize("follows", ["step", "on_success", "group", "on_failure", "on_retry_exhausted"])
def test_a_follow_up_that_the_broker_refuses_leaves_a_dead_letter_that_says_so(yard_broker, run_worker, follows):
    [work], pools = small_yard(max_retries=0).queues, small_yard().pools
    pools = (*pools, replace(pools[0], name="other", queues=("other",)))
    broker = yard_broker(Yard(queues=(work, replace(work, name="other")), pools=pools))

    @dramatiq.actor(broker=broker, queue_name="other")
    def second(*args: Any) -> None: ...

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> None:
        if follows in ("on_failure", "on_retry_exhausted"):
            raise ValueError("as it was told to")

    facilities(broker).records.calls.command("SET", broker.lane("other")[0].keys.bodies, "of another type")
    with run_worker("work", broker=broker):
        if follows == "step":
            dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        elif follows == "group":
            jobs = dramatiq.group([first.message()], broker=broker)
            jobs.add_completion_callback(second.message())
            jobs.run()
        else:
            options: dict[str, Any] = {follows: "second"}
            first.send_with_options(**options)
        letter = only_letter(broker)

    assert letter.reason == ("exhausted" if letter.exception == "ValueError" else "permanent")
    assert re.search("was refused: broker refused .*WRONGTYPE", letter.error)


@pytest.mark.parametrize("deferral", [LockTaken("ledger"), RetryLater(0.1, "busy", per="host")])
def test_on_failure_is_sent_for_the_failure_that_follows_a_deferral_and_not_for_that(yard_broker, run_worker, deferral):
    broker = yard_broker(small_yard(max_retries=0))
    runs, told = list[str](), list[str]()

    @dramatiq.actor(broker=broker, queue_name="work")
    def tell(message: dict[str, Any], error: Any) -> None:
        told.append(error["type"])

    @dramatiq.actor(broker=broker, queue_name="work", on_failure="tell")
    def job(host: str) -> None:
        runs.append(host)
        raise deferral if len(runs) == 1 else ValueError("as it was told to")

    with run_worker("work", "work-retry", broker=broker):
        job.send("one")
        only_letter(broker)
        wait_for(lambda: told)
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

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
def test_a_result_that_nothing_ran_is_a_failure_that_says_what_to_write(broker, run_worker, function):
    actor = dramatiq.actor(function, broker=broker, queue_name="work", actor_name="lazy")

    with run_worker("work", broker=broker):
        actor.send()
        letter = only_letter(broker)

    assert (letter.reason, letter.exception, letter.attempts) == ("permanent", "UnusableResult", 1)
    assert "which nothing has run; write `async def`" in letter.error


def test_every_attempt_gets_the_arguments_that_were_sent(broker, run_worker):
    seen: list[tuple[list[int], dict[str, int]]] = []
    told: list[dict[str, Any]] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def tell(message: dict[str, Any], error: Any) -> None:
        told.append(message)

    @dramatiq.actor(broker=broker, queue_name="work", on_failure="tell")
    def mutates(items: list[int], names: dict[str, int]) -> None:
        seen.append((list(items), dict(names)))
        items.append(2)
        names["b"] = 2
        raise ValueError("as it was told to")

    with run_worker("work", "work-retry", broker=broker):
        mutates.send([1], {"a": 1})
        letter = only_letter(broker)
        requeue(facilities(broker).transport, "work", letter.id)
        wait_for(lambda: len(seen) == 6)
        wait_for(lambda: len(told) == 6)

    assert seen == [([1], {"a": 1})] * 6
    assert (letter.message["args"], letter.message["kwargs"]) == ([[1], {"a": 1}], {})
    assert [list(message["args"]) for message in told] == [[[1], {"a": 1}]] * 6


DAY = datetime.date(2026, 5, 1)
AT = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
ORDER = Order(DAY, [Line(UUID(int=7), Decimal("9.90"))])


class Shop:
    """Actors with types on a broker of their own, and what they got."""

    def __init__(self, broker: RedisBroker) -> None:
        self.broker, self.got = broker, []  # type: RedisBroker, list[Any]

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

        def plain(value, number=0):
            self.got.append((value, number))

        def declare(function: Callable[..., Any], **options: Any) -> Any:
            return dramatiq.actor(function, broker=broker, queue_name="work", **options)

        self.remind, self.fail, self.tomorrow, self.plain = map(declare, (remind, fail, tomorrow, plain))
        self.keys: list[Any] = []
        self.keyed = declare(keyed, unique_key=lambda at: self.keys.append(at) or f"at:{at:%H}")

    def dead(self) -> Any:
        return next(iter(facilities(self.broker).transport.dead_letters("work").items), None)


@pytest.fixture
def shop(yard_broker) -> Iterator[Shop]:
    yield Shop(yard_broker(small_yard()))


def test_values_come_out_with_their_types(shop, run_worker):
    shop.remind.send(DAY, price=Decimal("1.50"), colour=Colour.RED)
    shop.remind.send_with_options(args=("2026-05-01",), kwargs={"price": "1.50", "colour": "red"}, delay=1)
    shop.broker.enqueue_many([shop.remind.message(DAY, price=Decimal("1.50"), colour=Colour.RED)])

    with run_worker(broker=shop.broker):
        wait_for(lambda: len(shop.got) == 3)

    assert shop.got == [(DAY, Decimal("1.50"), Colour.RED)] * 3


def test_a_retry_carries_the_same_json(shop, run_worker):
    shop.fail.send(ORDER, 2)

    with run_worker(broker=shop.broker):
        wait_for(lambda: len(shop.got) == 3)

    assert shop.got == [ORDER] * 3


def test_each_step_of_a_pipeline_gets_its_types(shop, run_worker):
    steps = [shop.tomorrow.message(DAY), shop.tomorrow.message(), shop.remind.message(price=Decimal(2))]
    dramatiq.pipeline(steps, broker=shop.broker).run()

    with run_worker(broker=shop.broker):
        wait_for(lambda: len(shop.got) == 3)

    assert shop.got == [DAY, DAY.replace(day=2), (DAY.replace(day=3), Decimal(2), None)]


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

    assert facilities(shop.broker).transport.stats("work").live.waiting == 0


def test_a_message_that_cannot_be_converted_is_a_dead_letter_that_says_which_argument(shop, run_worker):
    old: Message[Any] = Message("work", "remind", ("tomorrow",), {}, {"enqueued_at": 1})
    shop.broker.enqueue(old)

    with run_worker(broker=shop.broker):
        letter = wait_for(shop.dead)

    assert (letter.reason, letter.exception) == ("permanent", "ArgumentMismatch")
    assert "argument due expects datetime.date; this str does not fit; requeue it with other arguments" in letter.error
    assert letter.message["args"] == ["tomorrow"]
    assert shop.got == []
    requeue(facilities(shop.broker).transport, "work", old.message_id, arguments=(["2026-05-01"], {}))
    with run_worker(broker=shop.broker):
        wait_for(lambda: shop.got)
    assert shop.got[0][0] == DAY


def test_a_failed_job_keeps_the_json_of_its_arguments_in_its_dead_letter(shop, run_worker):
    shop.fail.send_with_options(args=(ORDER, 9), max_retries=0)

    with run_worker(broker=shop.broker):
        letter = wait_for(shop.dead)

    assert letter.message["args"][0]["lines"][0]["price"] == "9.90"
    assert told(shop.got[0]) == told(ORDER)


def test_a_unique_key_is_made_of_what_the_actor_gets(shop):
    first = shop.keyed.send(AT)

    second = shop.keyed.send("2026-05-01T12:30:00Z")

    assert second.message_id == first.message_id
    assert [type(key) for key in shop.keys] == [datetime.datetime] * 2
