"""The guide's Monte Carlo run: parts in rows, a failure in between, resumed, merged once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import erf, sqrt

import pytest

from switchyard.batches.services import Batch
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.errors import PermanentFailure
from switchyard.workers.checks import check_yard
from tests.conftest import RunWorker
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import run_block, shown_app, wait_counting
from tests.waiting import wait_for

PAGE = "simulate-on-all-cores"
PRICE = 100 * erf(0.1 / sqrt(2))  # of Black and Scholes, for what the parts draw


@pytest.fixture
def broker(yard_broker: Callable[..., RedisBroker], transactional_db: None) -> RedisBroker:
    """A broker with the guide's queue and pool."""
    declared = run_block(PAGE, -1)
    yard = replace(small_yard(), queues=(declared["RISK"],), pools=declared["POOLS"])
    assert check_yard(yard) == []
    return yard_broker(yard)


def test_a_run_that_lost_a_part_is_resumed_and_merged_once(broker: RedisBroker, run_worker: RunWorker) -> None:
    with shown_app(PAGE, broker) as app:
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
