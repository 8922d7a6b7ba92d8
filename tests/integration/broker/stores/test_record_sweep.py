"""The sweep drops live records whose message is gone, and no other."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.job_records import sweep
from switchyard.broker.stores.job_steps import LiveJob, live_step
from tests.factories.yards import small_yard

BuildBroker = Callable[..., RedisBroker]


def test_live_records_without_a_message_are_dropped(yard_broker: BuildBroker) -> None:
    broker = yard_broker(small_yard())
    records, keys = facilities(broker).records, broker.keys.queue("work")

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        pass

    ids = [job.send().message_id for _ in range(600)]
    steps = [live_step("work", LiveJob(id_, "running", attempt=1, generation=0, lane="work")) for id_ in ids]
    assert records.write(steps[:300]) + records.write(steps[300:]) == ["written"] * 600
    assert records.progress(ids[0], {"done": 1, "total": 2, "note": ""}, queue="work") is False
    client = records.calls.client
    for id_ in ids[::2]:
        client.hdel(keys.bodies, id_)

    assert sweep(records) == 300

    assert {str(id_, "ascii") for id_ in client.hkeys(keys.jobs)} == set(ids[1::2])
    assert client.exists(keys.progress) == 0
    assert sweep(records) == 0
