"""Steps of jobs in the buffer: whatever order they come in, the record says where the job is."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
import redis

from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls
from broker.stores.job_records import LIVE_TTL_MS, JobRecords, Step, sequence, step
from broker.worker.ack_barrier import AckBarrier


@pytest.fixture
def records(valkey: redis.Redis) -> JobRecords:
    return JobRecords(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}"))


def a_step(state: str, attempts: int) -> Step:
    order = sequence(generation=0, attempts=attempts, state=state)
    return step("job", sequence=order, state=state, fields={"attempts": attempts}, ttl_ms=LIVE_TTL_MS)


def start(buffer: AckBarrier) -> None:
    buffer.begin("job", lambda: a_step("running", 1))


def queue(buffer: AckBarrier) -> None:
    buffer.add(a_step("queued", 0))


def end(buffer: AckBarrier) -> None:
    buffer.add(a_step("succeeded", 1))


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([queue, start], "running"),
        ([start, queue], "running"),  # the worker was quicker than the sender
        ([start, end, queue], "succeeded"),
        ([queue, start, end], "succeeded"),
    ],
)
def test_the_latest_step_is_written(records: JobRecords, steps: list[Callable[[AckBarrier], None]], state: str) -> None:
    buffer = AckBarrier(records)
    for act in steps:
        act(buffer)
    buffer.flush()
    record = records.read("job")

    assert record is not None
    assert (record.state, record.attempts) == (state, 1)


def test_a_step_that_cannot_be_sent_is_told_and_holds_up_no_other(
    records: JobRecords, caplog: pytest.LogCaptureFixture
) -> None:
    ends = sequence(generation=0, attempts=1, state="succeeded")
    bad = step("bad", sequence=ends, state="succeeded", fields={"enqueued_at": 2**70}, ttl_ms=LIVE_TTL_MS)
    good = step("good", sequence=ends, state="succeeded", fields={}, ttl_ms=LIVE_TTL_MS)

    assert records.write([good, bad]) == ["written", "refused"]
    assert "job bad is not recorded" in caplog.text


def test_what_is_over_with_a_later_step_is_not_written_with_it(records: JobRecords) -> None:
    buffer = AckBarrier(records)
    waits = {"attempts": 1, "next_attempt_at": 7, "error": {"type": "E", "message": "no"}}
    buffer.add(step("job", sequence=11, state="retrying", fields=waits, ttl_ms=LIVE_TTL_MS))
    buffer.add(step("job", sequence=20, state="succeeded", fields={"attempts": 2}, ttl_ms=LIVE_TTL_MS))
    buffer.flush()

    record = records.read("job")

    assert record is not None
    assert (record.state, record.attempts, record.error, record.next_attempt_at) == ("succeeded", 2, None, None)
