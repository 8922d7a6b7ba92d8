"""Messages that no worker can run become dead letters that operators see, and dead letters can be requeued."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests.conftest import BuildBroker
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def test_a_message_for_an_actor_that_nobody_knows_in_time_is_a_dead_letter_and_blocks_nothing(
    broker: RedisBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.middleware.parking.GIVE_UP_MS", 0)
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def known() -> None:
        done.append(1)

    orphan = broker.enqueue(Message(queue_name="work", actor_name="gone", args=(1,), kwargs={}, options={}))
    with run_worker(broker=broker):
        known.send()
        wait_for(lambda: done)
        letter = wait_for(lambda: facilities(broker).transport.find_dead_letter("work", orphan.message_id))
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    stats = facilities(broker).transport.stats("work")
    assert (letter.actor, letter.reason, letter.attempts) == ("gone", "permanent", 0)
    assert stats.quarantined == 0
    assert facilities(broker).records.read(orphan.message_id).state == "dead"
    assert len(facilities(broker).alerts.claim_due()) == 1


def test_a_requeued_letter_runs_again_with_fresh_attempts(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(max_retries=1))
    mended: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def fixable() -> None:
        if not mended:
            raise RuntimeError("broken")

    with run_worker(broker=broker):
        job_id = fixable.send().message_id
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        wait_for(lambda: facilities(broker).records.read(job_id).state == "dead")
        mended.append(1)
        assert requeue(facilities(broker).transport, "work", job_id) == "moved"
        record = wait_for(lambda: _succeeded(broker, job_id))

    assert record.attempts == 1
    assert record.error is None
    assert facilities(broker).transport.stats("work").dead == 0
    assert requeue(facilities(broker).transport, "work", job_id) == "gone"


def _succeeded(broker: RedisBroker, job_id: str) -> Any:
    record = facilities(broker).records.read(job_id)
    return record if record and record.state == "succeeded" else None
