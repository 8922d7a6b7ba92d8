"""The guide's orders: the last piece goes to one of them, however often their jobs run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.core import mail
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.conf import declared_yard
from switchyard.testing import NotRepeatable, advance, redelivered, run_enqueued
from tests.conftest import RunWorker
from tests.integration.documentation.shown import shown_app
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")
PAGE = "reserve-stock-for-orders"


def test_the_last_pieces_go_to_the_orders_that_came_first(
    yard_broker: Callable[..., RedisBroker], run_worker: RunWorker
) -> None:
    broker = yard_broker(replace(declared_yard(), retry_speed=50), sends="outbox")
    with shown_app(PAGE, broker) as app:
        actors, models = app["actors"], app["models"]
        models.Stock.objects.create(article="lamp", pieces=2)
        reserve, failed = actors.reserve.fn, set()

        def reserve_after_a_failure(article: str, order_id: int) -> None:
            if not failed:
                failed.add(order_id)
                raise ConnectionError
            reserve(article, order_id)

        actors.reserve.fn = reserve_after_a_failure

        def states() -> list[str]:
            return list(models.Order.objects.order_by("pk").values_list("state", flat=True))

        with run_worker("default", "default-retry", broker=broker, threads=8):
            for _ in range(6):
                actors.place("lamp", 1, "ada@example.com")
            wait_for(lambda: "new" not in states() and len(mail.outbox) == 6)

        assert states() == ["reserved"] * 2 + ["sold out"] * 4
        assert models.Stock.objects.get().pieces == 0
        assert Counter(sent.subject.partition(": ")[2] for sent in mail.outbox) == {"reserved": 2, "sold out": 4}
        assert facilities(broker).transport.stats("default").live.scheduled == 6


def test_a_reservation_that_runs_again_after_a_kill_takes_no_second_piece(switchyard_broker: Broker) -> None:
    with shown_app(PAGE, switchyard_broker) as app:
        actors, models = app["actors"], app["models"]
        models.Stock.objects.create(article="lamp", pieces=2)
        actors.place("lamp", 1, "ada@example.com")

        with pytest.raises(NotRepeatable) as found:
            redelivered()

        assert found.value.actors == ["confirm"]
        assert models.Stock.objects.get().pieces == 1
        assert [order.state for order in models.Order.objects.all()] == ["reserved"]


def test_what_nobody_paid_is_put_back_once(switchyard_broker: Broker) -> None:
    with shown_app(PAGE, switchyard_broker) as app:
        actors, models = app["actors"], app["models"]
        models.Stock.objects.create(article="lamp", pieces=2)
        unpaid, paid = (actors.place("lamp", 1, "ada@example.com") for _ in range(2))
        run_enqueued()
        models.Order.objects.filter(pk=paid.pk).update(state="paid")
        advance(seconds=1_801, schedules=False)

        assert redelivered() == ["release"]
        assert models.Stock.objects.get().pieces == 1
        assert dict(models.Order.objects.values_list("pk", "state")) == {unpaid.pk: "released", paid.pk: "paid"}
