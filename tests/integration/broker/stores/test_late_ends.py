"""Ends that are recorded late: they replace no newer state of their job, and their rows reach the history."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import source
from switchyard.broker.stores.history_streams import (
    ENDED,
    EndedJob,
    HistoryStreams,
    LiveJob,
    Step,
    encode,
    ended_step,
    live_step,
    sequence,
)
from switchyard.broker.stores.job_records import JobRecords

BODY = b'{"actor":"a","sent_at":1}'
QUEUE = "work"


class Yard:
    """One queue with a message ``job`` that waits, and its records."""

    def __init__(self, valkey: redis.Redis) -> None:
        keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
        calls = RedisCalls(valkey)
        self.records = JobRecords(calls, keys, [QUEUE])
        self.history = HistoryStreams(calls, keys, [QUEUE])
        self.family = QueueOperations(calls, keys.queue(QUEUE))
        self.family.enqueue([Entry("job", BODY)])

    def live(self, state: str = "running", **fields: int) -> str:
        return self._written(live_step(QUEUE, LiveJob("job", state, **fields)))

    def end(self, state: str, *, kept_ms: int = 0, **fields: int) -> str:
        return self._written(ended_step(QUEUE, EndedJob("job", state, body=BODY, **fields), kept_ms=kept_ms))

    def _written(self, step: Step) -> str:
        return self.records.write([step])[0]

    @property
    def shown(self) -> tuple[str, int, int]:
        record = self.records.read("job")
        assert record is not None
        return record.state, record.generation, record.attempts

    @property
    def rows(self) -> int:
        return sum(entry.count for entry in self.history.read(limit=100))


@pytest.fixture
def yard(valkey: redis.Redis) -> Yard:
    return Yard(valkey)


@pytest.mark.parametrize("state", ["dead", "cancelled", "succeeded"])
@pytest.mark.parametrize("kept_ms", [0, 7_200_000])
def test_an_end_before_a_requeue_leaves_the_job_running(yard: Yard, state: str, kept_ms: int) -> None:
    yard.live(attempt=1, generation=1, started_at=2_000)
    yard.records.follow("job")

    assert yard.end(state, attempt=5, started_at=1_000, finished_at=1_500, kept_ms=kept_ms) == "late"

    assert yard.shown == ("running", 1, 1)
    assert yard.rows == 1
    stream = yard.records.stream_key("job", QUEUE)
    assert yard.records.calls.command("EXISTS", stream) == 0, "followers are not told of an end"
    assert yard.end("succeeded", attempt=1, generation=1, started_at=2_000, finished_at=3_000) == "written"
    assert yard.shown == ("succeeded", 1, 1)


def test_an_end_of_a_lost_lease_leaves_the_next_attempt_running(yard: Yard) -> None:
    yard.live(attempt=2, started_at=2_000)

    assert yard.end("succeeded", attempt=1, started_at=1_000, finished_at=2_500) == "late"
    assert yard.shown == ("running", 0, 2)


def test_a_death_before_a_requeue_leaves_the_later_end(yard: Yard) -> None:
    yard.end("succeeded", attempt=1, generation=1, started_at=2_000, finished_at=3_000)

    assert yard.end("dead", attempt=5, started_at=1_000, finished_at=1_500) == "late"
    assert yard.shown == ("succeeded", 1, 1)


def test_a_job_ends_that_was_cancelled_or_refused_before_its_next_start(yard: Yard) -> None:
    yard.live(attempt=2, started_at=1_000)  # its worker died

    assert yard.end("cancelled", attempt=1, finished_at=2_000) == "written"
    assert yard.shown == ("cancelled", 0, 1)


def test_a_repeated_end_is_written_again(yard: Yard) -> None:
    for _ in range(2):
        assert yard.end("dead", attempt=1, started_at=1_000, finished_at=1_500) == "written"
    assert yard.shown == ("dead", 0, 1)


@pytest.mark.parametrize("state", ["dead", "succeeded"])
def test_records_of_an_earlier_job_of_the_same_id_hold_up_no_end(yard: Yard, state: str) -> None:
    yard.live(attempt=3, started_at=1_000)

    assert yard.end(state, attempt=1, started_at=5_000, finished_at=6_000) == "written"
    assert yard.records.calls.command("HEXISTS", yard.family.keys.jobs, "job") == 0
    assert yard.end("dead", attempt=4, started_at=7_000, finished_at=8_000) == "written"
    assert yard.end("cancelled", attempt=0, finished_at=9_000) == "written"


LUA = source("job_write")
FUNCTIONS = "\n".join(
    found[0]
    for name in ("head_of", "place_of")
    if (found := re.search(rf"^local function {name}\(.*?^end$", LUA, re.MULTILINE | re.DOTALL))
)


@pytest.mark.parametrize("state", sorted(ENDED))
@pytest.mark.parametrize("generation", [0, 3])
@pytest.mark.parametrize(
    ("attempt", "started_at", "attempts"), [(1, 5, 1), (0, None, 1), (2, None, 3), (7, 5, 7), (200_000, 5, 100_000)]
)
def test_the_server_places_an_end_as_python_does(
    valkey: redis.Redis, state: str, generation: int, attempt: int, started_at: int | None, attempts: int
) -> None:
    ended = EndedJob("j-1", state, attempt=attempt, generation=generation, started_at=started_at, finished_at=9)

    place: Any = valkey.eval(f"{FUNCTIONS}\nreturn (place_of(ARGV[1]))", 0, encode(ended))

    assert place == sequence(generation=generation, attempts=attempts, state=state)


def test_a_life_goes_on_from_step_to_step() -> None:
    life = [
        sequence(generation=generation, attempts=attempts, state=state)
        for generation in (0, 1)
        for attempts, state in [(0, "queued"), (1, "running"), (1, "retrying"), (2, "running"), (2, "dead")]
    ]

    assert life == sorted(set(life))
