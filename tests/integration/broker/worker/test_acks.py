"""Acknowledgements and steps of jobs in the buffer: no message is acknowledged before its record is written."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import redis

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.history_streams import (
    ENDED,
    EndedJob,
    Failure,
    LiveJob,
    Step,
    decode_rows,
    ended_step,
    live_step,
)
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.acks import MANY, AckBarrier, Acks
from tests.waiting import wait_for

OWNER = "child/live"


@pytest.fixture
def keys() -> Keys:
    return Keys(f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def family(valkey: redis.Redis, keys: Keys) -> QueueOperations:
    family = QueueOperations(RedisCalls(valkey), keys.queue("work"))
    family.join(OWNER)
    return family


class Row:
    """A child's row that does something when a flush begins."""

    def __init__(self, begin: Callable[[], object]) -> None:
        self._begin = begin

    def last_end(self) -> int:
        self._begin()
        return 0

    def confirm_flush(self, last_end: int) -> None:
        """Do nothing."""


@pytest.fixture
def may_write() -> threading.Event:
    return threading.Event()


@pytest.fixture
def steps(valkey: redis.Redis, keys: Keys, may_write: threading.Event) -> Iterator[AckBarrier]:
    """Records that are written in the background, once the test allows it."""
    steps = AckBarrier(JobRecords(RedisCalls(valkey), keys, ["work"]))
    steps.finished = Row(lambda: may_write.wait(60))
    steps.start()
    yield steps
    may_write.set()
    steps.stop()


def hold(family: QueueOperations, count: int) -> list[Lease]:
    family.enqueue([Entry(f"job-{number}", b"{}") for number in range(count)])
    return [grant.lease for grant in family.fetch(OWNER, count, request=1).grants]


def succeed(steps: AckBarrier, lease: Lease) -> None:
    steps.add(ended_step("work", EndedJob(str(lease.id, "ascii"), "succeeded", attempt=1)))


def test_of_many_only_those_are_taken_whose_records_are_written(
    family: QueueOperations, steps: AckBarrier, may_write: threading.Event, valkey: redis.Redis, keys: Keys
) -> None:
    leases, acks = hold(family, MANY + 4), Acks(family, OWNER, barrier=steps)
    for lease in leases:
        succeed(steps, lease)
        acks.add(lease)

    assert acks.take_written() == []  # and at once, although nothing can be written
    may_write.set()
    wait_for(lambda: not steps.pending, what="records written")

    assert acks.take_written() == leases
    records = JobRecords(RedisCalls(valkey), keys, ["work"])
    assert {found.state for lease in leases if (found := records.read(str(lease.id, "ascii")))} == {"succeeded"}


def test_a_record_that_is_noted_later_holds_back_only_its_own(
    family: QueueOperations, steps: AckBarrier, may_write: threading.Event
) -> None:
    leases, acks = hold(family, 2 * MANY + 1), Acks(family, OWNER, barrier=steps)
    may_write.set()
    for lease in leases[:-1]:
        succeed(steps, lease)
        acks.add(lease)
    wait_for(lambda: not steps.pending, what="records written")
    may_write.clear()
    succeed(steps, leases[-1])
    acks.add(leases[-1])

    assert acks.take_written() == leases[:-1]
    assert acks.pending


def test_few_are_written_by_whoever_sends_them(
    family: QueueOperations, steps: AckBarrier, may_write: threading.Event
) -> None:
    [lease], acks = hold(family, 1), Acks(family, OWNER, barrier=steps)
    succeed(steps, lease)
    acks.add(lease)
    may_write.set()
    acks.send()

    assert not acks.pending
    assert family.held(OWNER) == []


def test_records_that_cannot_be_written_keep_the_messages_held(family: QueueOperations, steps: AckBarrier) -> None:
    [lease], acks = hold(family, 1), Acks(family, OWNER, barrier=steps)

    def refuse() -> None:
        raise BrokerUnavailable("job_write", "away")

    steps.finished = Row(refuse)
    succeed(steps, lease)
    acks.add(lease)
    acks.send()

    assert acks.pending
    assert family.held(OWNER) == [lease]
    steps.finished = None
    acks.send()
    assert family.held(OWNER) == []


def test_finished_ids_are_remembered_for_ten_to_twenty_minutes(family: QueueOperations, valkey: redis.Redis) -> None:
    first, second = hold(family, 2)
    family.ack(OWNER, [first])
    expires_at = [valkey.pexpiretime(done) for done in family.keys.done if valkey.exists(done)]
    family.ack(OWNER, [second])
    seconds, microseconds = valkey.time()
    left_ms = expires_at[0] - seconds * 1000 - microseconds / 1000

    assert len(expires_at) == 1
    assert 600_000 - 5_000 < left_ms <= 1_200_000
    assert {valkey.pexpiretime(done) for done in family.keys.done if valkey.exists(done)} >= {expires_at[0]}


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
