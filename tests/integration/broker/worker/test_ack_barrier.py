"""Steps of jobs in the buffer: whatever order they come in, the record says where the job is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.history_streams import EndedJob, Failure, decode_rows
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import ENDED, LiveJob, Step, ended_step, live_step
from switchyard.broker.worker.acks import AckBarrier


@pytest.fixture
def records(valkey: redis.Redis) -> JobRecords:
    return JobRecords(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}"), ["work"], finds_waiting=False)


def a_step(state: str, attempts: int) -> Step:
    if state in ENDED:
        return ended_step("work", EndedJob("job", state, attempt=attempts))
    return live_step("work", LiveJob("job", state, attempt=attempts))


def start(buffer: AckBarrier) -> None:
    buffer.begin(SimpleNamespace(message_id="job"), lambda message: a_step("running", 1))


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


def test_an_attempt_that_is_retried_leaves_its_row_beside_the_end(records: JobRecords) -> None:
    buffer, failure = AckBarrier(records), Failure("E", "no")
    failed = ended_step("work", EndedJob("job", "retrying", attempt=1, error=failure))
    waits = LiveJob("job", "retrying", attempt=1, next_attempt_at=7, error=failure)
    buffer.add(live_step("work", waits, rows=failed.rows))
    buffer.add(ended_step("work", EndedJob("job", "succeeded", attempt=2)))
    buffer.flush()

    record = records.read("job")

    assert record is not None
    assert (record.state, record.attempts, record.error, record.next_attempt_at) == ("succeeded", 2, None, None)
    [(_, fields)] = records.calls.client.xrange(records.keys.queue("work").history)
    assert [(row.state, row.attempt) for row in decode_rows(fields[b"rows"])] == [("retrying", 1), ("succeeded", 2)]
    assert fields[b"n"] == b"2"


def test_a_start_after_a_failure_keeps_the_failure(records: JobRecords) -> None:
    failed = LiveJob("job", "retrying", attempt=1, started_at=1, next_attempt_at=7, error=Failure("E", "no"))
    for job in (failed, LiveJob("job", "running", attempt=2, started_at=1_700_000_000_123)):
        records.write([live_step("work", job)])

    record = records.read("job")

    assert record is not None
    assert (record.state, record.attempts, record.next_attempt_at) == ("running", 2, None)
    assert record.started_at == 1_700_000_000_123
    assert record.error == {"type": "E", "message": "no"}
