"""Results while the broker, their default store, is killed and started again: all jobs complete, all are found."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.result_stores import LARGE_BYTES
from switchyard.files.addresses import results_of
from switchyard.jobs.results import result_stores
from switchyard.wiring import build_yard
from tests.chaos.load import let_pass
from tests.chaos.server import ServerUnderTest
from tests.factories.yards import small_yard
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("soon_again")
COUNTS = [100, pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
AWAY_S = 1.0
LARGE_EACH = 10


@pytest.fixture
def broker(server: ServerUnderTest, settings: Any, tmp_path: Any) -> Iterator[RedisBroker]:
    """A broker whose records hold the results, and large ones a folder."""
    server.sync_each_write()
    settings.MEDIA_ROOT = str(tmp_path / "media")
    keys = Keys(f"chaos-{uuid.uuid4().hex[:8]}")
    stores = result_stores(results_of("TEST", ""))
    broker = build_yard(small_yard(max_retries=20), connect(server.url), keys, results=stores)
    yield broker
    broker.close()
    broker.client.close()


@pytest.mark.parametrize("jobs", COUNTS)
def test_a_broker_that_is_killed_costs_no_job_and_no_result(
    server: ServerUnderTest, broker: RedisBroker, run_worker: Any, jobs: int
) -> None:
    ran: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(number: int) -> str:
        ran.append(number)
        return text_of(number)

    messages = [returns.send(number) for number in range(jobs)]
    records = facilities(broker).records

    with run_worker(broker=broker):
        for part in (4, 2):  # a quarter of the jobs has begun, and half of them
            wait_for(lambda part=part: len(ran) >= jobs // part, what=f"{jobs // part} jobs")
            server.kill()
            let_pass(AWAY_S)
            server.restart()
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in messages), 120)
    found = [message.get_result(backend=broker.get_results_backend()) for message in messages]

    print(f"{jobs} jobs, {len(ran) - jobs} ran twice")
    assert set(ran) == set(range(jobs))
    assert found == [text_of(number) for number in range(jobs)]


def text_of(number: int) -> str:
    """Return a job's result; each tenth is too large for its record."""
    return f"{number}:".ljust(0 if number % LARGE_EACH else LARGE_BYTES, "x")
