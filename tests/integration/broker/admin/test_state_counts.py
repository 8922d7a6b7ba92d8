"""Counts of unfinished messages by state."""

from __future__ import annotations

import redis

from switchyard.broker.admin.scheduled import state_counts
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import LiveJob, live_step

HOUR_MS = 3_600_000


def test_every_place_of_every_family_counts_once(valkey: redis.Redis) -> None:
    calls, keys = RedisCalls(valkey), Keys(prefix="counted")
    one, other = (QueueOperations(calls, keys.queue(name)) for name in ("one", "other"))
    one.join("worker/live")
    one.enqueue([Entry(f"runs-{n}", b"{}") for n in range(2)])
    one.fetch("worker/live", 2, request=1)
    records = JobRecords(calls, keys, ["one", "other"])
    started = LiveJob("runs-0", "running", "", 1, 0, now_ms(), message="{}")
    records.write([live_step("one", started)])
    one.enqueue([Entry("high", b"{}")], level=1)
    one.enqueue([Entry("later", b"{}")], delay_ms=HOUR_MS)
    other.enqueue([Entry("retry", b"{}")], lane="retry")
    other.enqueue([Entry("retry-later", b"{}")], lane="retry", delay_ms=HOUR_MS)
    other.enqueue([Entry("waits", b"{}")])

    assert state_counts([one, other], records) == {"queued": 3, "scheduled": 1, "retrying": 2, "running": 1}
    assert set(state_counts([], records).values()) == {0}
