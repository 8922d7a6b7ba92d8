"""Arguments with types on a real broker: into the worker, through retries, dead letters, pipelines and commits."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import dramatiq
import pytest
from django.db import transaction
from dramatiq import Message

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.jobs.services import enqueue_on_commit, submit
from switchyard.middleware.errors import ArgumentMismatch
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.unit.broker.queue.arguments.kinds import Colour, Line, Order, told
from tests.waiting import wait_for

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

        def plain(value, number=0):  # type: ignore[no-untyped-def]
            self.got.append((value, number))

        def declare(function: Callable[..., Any], **options: Any) -> Any:
            return dramatiq.actor(function, broker=broker, queue_name="work", **options)

        self.remind, self.fail, self.tomorrow, self.plain = map(declare, (remind, fail, tomorrow, plain))
        self.keys: list[Any] = []
        self.keyed = declare(keyed, unique_key=lambda at: self.keys.append(at) or f"at:{at:%H}")

    def dead(self) -> Any:
        return next(iter(facilities(self.broker).transport.dead_letters("work").items), None)


@pytest.fixture
def shop(yard_broker: Callable[..., RedisBroker]) -> Iterator[Shop]:
    yield Shop(yard_broker(small_yard()))


def test_values_come_out_with_their_types(shop: Shop, run_worker: Any) -> None:
    shop.remind.send(DAY, price=Decimal("1.50"), colour=Colour.RED)
    shop.remind.send_with_options(args=("2026-05-01",), kwargs={"price": "1.50", "colour": "red"}, delay=1)
    shop.broker.enqueue_many([shop.remind.message(DAY, price=Decimal("1.50"), colour=Colour.RED)])

    with run_worker(broker=shop.broker):
        wait_for(lambda: len(shop.got) == 3)

    assert shop.got == [(DAY, Decimal("1.50"), Colour.RED)] * 3


def test_a_retry_carries_the_same_json(shop: Shop, run_worker: Any) -> None:
    shop.fail.send(ORDER, 2)

    with run_worker(broker=shop.broker):
        wait_for(lambda: len(shop.got) == 3)

    assert shop.got == [ORDER] * 3


def test_each_step_of_a_pipeline_gets_its_types(shop: Shop, run_worker: Any) -> None:
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
def test_what_does_not_fit_is_refused_where_it_is_sent_and_nothing_was_sent(
    shop: Shop, send: Callable[[Any], Any]
) -> None:
    words = (
        r"actor tomorrow: argument due expects datetime.date; this str does not fit; it is declared as "
        r"tomorrow\(due.*test_typed_arguments.py:\d+"
    )
    with transaction.atomic(), pytest.raises(ArgumentMismatch, match=words):
        send(shop.tomorrow)

    assert facilities(shop.broker).transport.stats("work").live.waiting == 0


def test_a_message_that_cannot_be_converted_is_a_dead_letter_that_says_which_argument(
    shop: Shop, run_worker: Any
) -> None:
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


def test_a_failed_job_keeps_the_json_of_its_arguments_in_its_dead_letter(shop: Shop, run_worker: Any) -> None:
    shop.fail.send_with_options(args=(ORDER, 9), max_retries=0)

    with run_worker(broker=shop.broker):
        letter = wait_for(shop.dead)

    assert letter.message["args"][0]["lines"][0]["price"] == "9.90"
    assert told(shop.got[0]) == told(ORDER)


def test_a_unique_key_is_made_of_what_the_actor_gets(shop: Shop) -> None:
    first = shop.keyed.send(AT)

    second = shop.keyed.send("2026-05-01T12:30:00Z")

    assert second.message_id == first.message_id
    assert [type(key) for key in shop.keys] == [datetime.datetime] * 2
