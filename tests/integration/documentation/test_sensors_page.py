"""The guide's readings: portions that come again, overlap or name a reading twice leave one row for each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.testing import enqueued, redelivered
from tests.conftest import RunWorker
from tests.integration.documentation.shown import shown_app
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")
PAGE = "store-sensor-data"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
VALUES = [(f"s{number % 3}", NOON + timedelta(seconds=number), number / 2) for number in range(1_200)]


def test_portions_that_come_again_and_cross_each_other_leave_one_row_for_each_reading(
    yard_broker: Callable[..., RedisBroker], run_worker: RunWorker
) -> None:
    broker = yard_broker()
    stats = facilities(broker).transport.stats
    with shown_app(PAGE, broker) as app, run_worker("default", broker=broker, threads=4):
        rows = app["models"].Reading.objects

        def stored(*portions: list[tuple[str, datetime, float]]) -> list[tuple[str, datetime, float]]:
            for portion in portions:
                app["actors"].ingest(portion)
            wait_for(lambda: not stats("default").live.total + stats("default").retry.total)
            return list(rows.order_by("at").values_list("sensor", "at", "value"))

        first = stored(*[VALUES, VALUES[::-1]] * 4)
        corrected = stored([(*VALUES[7][:2], 1.0), (*VALUES[7][:2], 2.0), *VALUES[:7]])

    assert (first, corrected) == (VALUES, [*VALUES[:7], (*VALUES[7][:2], 2.0), *VALUES[8:]])


def test_a_portion_that_runs_again_after_a_kill_changes_nothing_and_each_sensor_is_watched_once(
    switchyard_broker: Broker,
) -> None:
    with shown_app(PAGE, switchyard_broker) as app:
        app["actors"].ingest(VALUES[:700])
        portions = [message.actor_name for message in enqueued()]
        app["actors"].store(VALUES[:3])
        waiting = [message.args[0] for message in enqueued(app["actors"].watch)]

        assert redelivered() == ["store", "watch"]
        assert (portions, waiting) == (["store"] * 2, ["s0", "s1", "s2"])
        assert app["models"].Reading.objects.count() == 700


def test_a_reading_that_does_not_fit_is_refused_where_it_is_sent(switchyard_broker: Broker) -> None:
    with shown_app(PAGE, switchyard_broker) as app, pytest.raises(ArgumentMismatch, match="values"):
        app["actors"].ingest([("s1", NOON, "warm")])
