"""Apps of the guides: orders for the last piece, readings that come again, a Monte Carlo run that is resumed."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import erf, sqrt

import pytest
from django.core import mail

from switchyard.batches.services import Batch
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.middleware.errors import ArgumentMismatch, PermanentFailure
from switchyard.testing import NotRepeatable, advance, enqueued, redelivered, run_enqueued
from switchyard.workers.checks import check_yard
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import run_block, shown_app, wait_counting
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")
ORDERS = "reserve-stock-for-orders"
SENSORS = "store-sensor-data"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
VALUES = [(f"s{number % 3}", NOON + timedelta(seconds=number), number / 2) for number in range(1_200)]
SIMULATION = "simulate-on-all-cores"
PRICE = 100 * erf(0.1 / sqrt(2))  # of Black and Scholes, for what the parts draw


def test_the_last_pieces_go_to_the_orders_that_came_first(yard_broker, run_worker):
    broker = yard_broker(replace(declared_yard(), retry_speed=50), sends="outbox")
    with shown_app(ORDERS, broker) as app:
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

        assert (states(), models.Stock.objects.get().pieces) == (["reserved"] * 2 + ["sold out"] * 4, 0)
        assert Counter(sent.subject.partition(": ")[2] for sent in mail.outbox) == {"reserved": 2, "sold out": 4}
        assert facilities(broker).transport.stats("default").live.scheduled == 6


def test_a_reservation_that_runs_again_after_a_kill_takes_no_second_piece(switchyard_broker):
    with shown_app(ORDERS, switchyard_broker) as app:
        actors, models = app["actors"], app["models"]
        models.Stock.objects.create(article="lamp", pieces=2)
        actors.place("lamp", 1, "ada@example.com")

        with pytest.raises(NotRepeatable) as found:
            redelivered()

        assert found.value.actors == ["confirm"]
        assert models.Stock.objects.get().pieces == 1
        assert [order.state for order in models.Order.objects.all()] == ["reserved"]


def test_what_nobody_paid_is_put_back_once(switchyard_broker):
    with shown_app(ORDERS, switchyard_broker) as app:
        actors, models = app["actors"], app["models"]
        models.Stock.objects.create(article="lamp", pieces=2)
        unpaid, paid = (actors.place("lamp", 1, "ada@example.com") for _ in range(2))
        run_enqueued()
        models.Order.objects.filter(pk=paid.pk).update(state="paid")
        advance(seconds=1_801, schedules=False)

        assert redelivered() == ["release"]
        assert models.Stock.objects.get().pieces == 1
        assert dict(models.Order.objects.values_list("pk", "state")) == {unpaid.pk: "released", paid.pk: "paid"}


def test_portions_that_come_again_and_cross_each_other_leave_one_row_for_each_reading(yard_broker, run_worker):
    broker = yard_broker()
    stats = facilities(broker).transport.stats
    with shown_app(SENSORS, broker) as app, run_worker("default", broker=broker, threads=4):
        rows = app["models"].Reading.objects

        def stored(*portions: list[tuple[str, datetime, float]]) -> list[tuple[str, datetime, float]]:
            for portion in portions:
                app["actors"].ingest(portion)
            wait_for(lambda: not stats("default").live.total + stats("default").retry.total)
            return list(rows.order_by("at").values_list("sensor", "at", "value"))

        first = stored(*[VALUES, VALUES[::-1]] * 4)
        corrected = stored([(*VALUES[7][:2], 1.0), (*VALUES[7][:2], 2.0), *VALUES[:7]])

    assert (first, corrected) == (VALUES, [*VALUES[:7], (*VALUES[7][:2], 2.0), *VALUES[8:]])


def test_a_portion_that_runs_again_after_a_kill_changes_nothing_and_each_sensor_is_watched_once(switchyard_broker):
    with shown_app(SENSORS, switchyard_broker) as app:
        app["actors"].ingest(VALUES[:700])
        portions = [message.actor_name for message in enqueued()]
        app["actors"].store(VALUES[:3])
        waiting = [message.args[0] for message in enqueued(app["actors"].watch)]

        assert redelivered() == ["store", "watch"]
        assert (portions, waiting, app["models"].Reading.objects.count()) == (["store"] * 2, ["s0", "s1", "s2"], 700)


def test_a_reading_that_does_not_fit_is_refused_where_it_is_sent(switchyard_broker):
    with shown_app(SENSORS, switchyard_broker) as app, pytest.raises(ArgumentMismatch, match="values"):
        app["actors"].ingest([("s1", NOON, "warm")])


@pytest.fixture
def broker(yard_broker, transactional_db):
    """A broker with the guide's queue and pool."""
    declared = run_block(SIMULATION, -1)
    yard = replace(small_yard(), queues=(declared["RISK"],), pools=declared["POOLS"])
    assert check_yard(yard) == []
    return yard_broker(yard)


def test_a_run_that_lost_a_part_is_resumed_and_merged_once(broker, run_worker):
    with shown_app(SIMULATION, broker) as app:
        run = app["models"].Run.objects.create(parts=8, draws=1_000)
        simulate, drawn, broken = app["actors"].simulate.fn, [], {3}

        def simulate_or_fail(run_id: int, number: int, draws: int) -> None:
            drawn.append(number)
            if number in broken:
                raise PermanentFailure("no memory")
            simulate(run_id, number, draws)

        app["actors"].simulate.fn = simulate_or_fail
        with run_worker("risk", broker=broker):
            first = Batch(app["actors"].start(run.pk))
            wait_counting(lambda: first.progress().state == "complete")
            app["actors"].merge(run.pk)  # too early: a part is missing
            kept = dict(run.done.values_list("number", "total"))
            run.refresh_from_db()
            mean_without_all = run.mean
            broken.clear()
            second = Batch(app["actors"].start(run.pk))
            wait_counting(lambda: second.progress().state == "succeeded")
            wait_for(lambda: app["models"].Run.objects.get().mean is not None)

        run.refresh_from_db()
        assert (mean_without_all, sorted(kept)) == (None, [0, 1, 2, 4, 5, 6, 7])
        assert sorted(drawn) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
        assert abs(run.mean - PRICE) < 4 * run.error < 1

        parts = dict(run.done.values_list("number", "total"))
        assert kept.items() < parts.items()
        simulate(run.pk, 3, 10)  # nor would other numbers replace what was merged
        run.done.filter(number=5).delete()
        simulate(run.pk, 5, 1_000)
        assert dict(run.done.values_list("number", "total")) == parts
        app["models"].Run.objects.update(mean=1.0)
        app["actors"].merge(run.pk)
        assert app["models"].Run.objects.get().mean == 1.0
