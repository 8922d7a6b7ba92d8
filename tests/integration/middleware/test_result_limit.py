"""A result of more than 1 MiB: the job has succeeded, the result is not stored, and everybody is told why."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES as RESULT_LIMIT_BYTES
from tests.waiting import wait_for

WHY = "result of 50000002 bytes is not stored, at most 1048576 are; store what is large, and return its name"


def test_a_result_over_the_limit_is_not_stored(
    broker: RedisBroker, run_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(count: int) -> str:
        return "x" * count

    with run_worker(broker=broker):
        fits, large = returns.send(RESULT_LIMIT_BYTES - 2), returns.send(50_000_000)
        kept = wait_for(lambda: (found := records.read(fits.message_id)) and found.ended and found)
        dropped = wait_for(lambda: (found := records.read(large.message_id)) and found.ended and found)

    assert (kept.state, len(kept.result), kept.error) == ("succeeded", RESULT_LIMIT_BYTES - 2, None)
    assert (dropped.state, dropped.result) == ("succeeded", None)
    assert dropped.error["type"] == "ResultNotStored"
    assert WHY in dropped.error["message"]
    assert "result is too large, not kept" in caplog.text
    assert broker.client.hstrlen(broker.keys.queue("work").ended_bucket(1), large.message_id) < 10_000
