from __future__ import annotations

import dramatiq
import pytest
from django.conf import settings

from switchyard.broker.interface import Facilities
from switchyard.broker.stores.pool_reports import PoolReport
from tests.factories.callers import Caller
from tests.factories.commands import json_of
from tests.factories.letters import keep, letter

FIELDS = {
    "queue", "depth", "scheduled", "parked", "running", "retrying", "dead", "quarantined", "oldest_age_seconds",
    "arrivals_per_second", "starts_per_second", "ends_per_second",
    "objective_seconds", "done_objective_seconds",
    "oldest_unfinished_age_seconds", "paused", "pause", "pools", "pools_up",
    "slots", "slots_busy",
}  # fmt: skip


@pytest.fixture
def busy(facilities: Facilities, slow_pool: PoolReport) -> None:
    """Two messages wait on slow, one letter is dead."""

    @dramatiq.actor(actor_name="waits", queue_name="slow")
    def waits() -> None:
        pass

    for _ in range(2):
        waits.send()
    keep(letter(queue="slow"))
    del dramatiq.get_broker().actors["waits"]


def test_json_holds_the_same_as_the_api(busy: None) -> None:
    slow = next(queue for queue in json_of("queues") if queue["queue"] == "slow")

    assert set(slow) == FIELDS
    assert (slow["depth"], slow["dead"], slow["slots"], slow["slots_busy"], slow["pools_up"]) == (2, 1, 2, 1, 1)
    assert 0 <= slow["oldest_age_seconds"] < 30
    assert slow["objective_seconds"] == 300
    assert slow["arrivals_per_second"] >= 0 and slow["starts_per_second"] == slow["ends_per_second"] == 0


@pytest.mark.django_db
def test_api_tells_every_queue(busy: None) -> None:
    answer = Caller().get("/queues")

    assert answer.status_code == 200
    found = answer.json()["queues"]
    assert [queue["queue"] for queue in found] == [queue.name for queue in settings.SWITCHYARD.topology.queues]
    assert all(set(queue) == FIELDS for queue in found)


@pytest.mark.django_db
def test_api_without_a_broker_answers_503(broker_away: None) -> None:
    answer = Caller().get("/queues")

    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in answer
