"""Records of ended jobs within their budget: the oldest leave first, live ones never, and lost rows are counted."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

import dramatiq
import pytest
import redis

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys, QueueKeys
from switchyard.broker.queue.operations import Entry, HistoryRow, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import (
    EndedJob,
    HistoryStreams,
    LiveJob,
    decode_rows,
    ended_step,
    live_step,
)
from switchyard.broker.stores.job_records import MARK_TTL_MS, JobRecords, RecordLimits, sweep

MEBIBYTE = 1024 * 1024
BODY = b'{"actor":"a","sent_at":1,"args":["' + b"x" * 200 + b'"]}'
QUEUE = "work"


@pytest.fixture
def keys() -> Keys:
    return Keys(f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def family(keys: Keys) -> QueueKeys:
    return keys.queue(QUEUE)


def make(valkey: redis.Redis, keys: Keys, **limits: int) -> JobRecords:
    return JobRecords(RedisCalls(valkey), keys, [QUEUE], limits=RecordLimits(**limits))


def ids(count: int, name: str = "job") -> Iterator[str]:
    return (f"{name}-{number:06d}" for number in range(count))


def end(records: JobRecords, names: list[str], *, at_once: int = 200) -> None:
    for start in range(0, len(names), at_once):
        jobs = [EndedJob(id_, "succeeded", attempt=1, body=BODY) for id_ in names[start : start + at_once]]
        records.write([ended_step(QUEUE, job) for job in jobs])


def figures(valkey: redis.Redis, family: QueueKeys) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in valkey.hgetall(family.ended).items()}


def buckets(valkey: redis.Redis, family: QueueKeys) -> list[bytes]:
    return list(valkey.scan_iter(f"{family.ended}:*", count=10_000))


def test_the_oldest_leave_first_and_live_ones_never(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records = make(valkey, keys, records_bytes=MEBIBYTE)
    live = list(ids(50, "live"))
    queue = QueueOperations(records.calls, family)
    queue.enqueue([Entry(id_, BODY) for id_ in live])
    records.write([live_step(QUEUE, LiveJob(id_, "running", attempt=1)) for id_ in live])

    ended = list(ids(10_000))
    end(records, ended)

    known = [state is not None for state in records.states(ended[::50])]
    assert known == sorted(known), "an older one is known, a newer one is not"
    assert not known[0] and known[-1]
    assert set(records.states(live)) == {"running"}
    kept = sum(valkey.hlen(bucket) for bucket in buckets(valkey, family))
    used = sum(valkey.memory_usage(bucket, samples=0) for bucket in buckets(valkey, family))
    assert kept > 1_000
    assert used < 1.35 * MEBIBYTE, "what is counted is what is used"
    assert figures(valkey, family)["bytes"] <= MEBIBYTE
    assert len(buckets(valkey, family)) <= 16


@pytest.mark.parametrize("value", [b"9" * 19, b"1e308", b"inf", b"nan", b"-9e18", b"1.5", b"x"])
@pytest.mark.parametrize("field", ["first", "last"])
def test_numbers_of_another_hand_hold_nobody_up(
    valkey: redis.Redis, keys: Keys, family: QueueKeys, field: str, value: bytes
) -> None:
    """Each call would count from bucket to bucket for ever, and the server with it."""
    records = make(valkey, keys)
    end(records, ["before"])
    for name, size in (("a", 0), ("b", MEBIBYTE * 1024)):  # the second begins a bucket
        valkey.hset(family.ended, mapping={field: value, "size": size})
        records.states(["before"])
        end(records, [name])
        assert records.states([name]) == ["succeeded"]


def test_records_leave_after_their_time(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records = make(valkey, keys, ended_ms=3_600_000)

    end(records, ["job"])

    [bucket] = buckets(valkey, family)
    assert 3_600_000 < valkey.pttl(bucket) <= 4_200_000


def test_a_bucket_that_expired_is_no_longer_counted(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records = make(valkey, keys)
    end(records, ["old"])
    valkey.delete(*buckets(valkey, family))
    valkey.hset(family.ended, "at", 1)

    end(records, ["new"])

    found = figures(valkey, family)
    assert (found["first"], found["last"]) == (2, 2)
    assert found["bytes"] == found["size"]
    assert records.states(["old", "new"]) == [None, "succeeded"]


def test_rows_over_the_budget_of_the_history_are_dropped_and_counted(
    valkey: redis.Redis, keys: Keys, family: QueueKeys
) -> None:
    records = make(valkey, keys, history_bytes=MEBIBYTE)

    end(records, list(ids(10_000)), at_once=100)

    rows = [row.id for _, fields in valkey.xrange(family.history) for row in decode_rows(fields[b"rows"])]
    found = figures(valkey, family)
    assert rows == list(ids(10_000))[-len(rows) :], "the newest stay"
    assert len(rows) + found["dropped"] == 10_000
    assert found["history"] <= MEBIBYTE
    assert valkey.memory_usage(family.history, samples=0) < 1.35 * MEBIBYTE


def test_entries_of_another_hand_are_dropped_like_others(
    valkey: redis.Redis, keys: Keys, family: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    records = make(valkey, keys, history_bytes=MEBIBYTE)
    for fields in ({"n": "many", "rows": b""}, {"n": "1"}, {"other": ""}, {"n": "1e3", "rows": b""}, {"n": "9" * 30}):
        valkey.xadd(family.history, fields)

    end(records, list(ids(10_000)), at_once=100)

    rows = [row for _, fields in valkey.xrange(family.history) for row in decode_rows(fields[b"rows"])]
    assert not caplog.records
    assert len(rows) + figures(valkey, family)["dropped"] == 10_000 + 5


def test_what_the_history_took_over_is_no_longer_counted(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records = make(valkey, keys)
    end(records, list(ids(1_000)), at_once=30)
    streams = HistoryStreams(records.calls, keys, [QUEUE])
    entries = streams.read(limit=1_000)

    streams.remove(entries[:20], written=600, skipped=0)
    streams.remove(entries[:20], written=0, skipped=0)
    left = figures(valkey, family)["history"]
    streams.remove(entries[20:], written=400, skipped=0)

    assert left > 0
    assert figures(valkey, family)["history"] == 0
    assert valkey.xlen(family.history) == 0


def test_rows_that_were_written_while_the_budget_removed_them_are_not_counted_as_dropped(
    valkey: redis.Redis, keys: Keys, family: QueueKeys
) -> None:
    records = make(valkey, keys, history_bytes=MEBIBYTE)
    streams = HistoryStreams(records.calls, keys, [QUEUE])
    end(records, list(ids(2_000)), at_once=100)
    entries = streams.read(limit=1_000)
    end(records, [f"later-{number}" for number in range(10_000)], at_once=100)
    dropped = figures(valkey, family)["dropped"]
    there = {id_ for id_, _ in valkey.xrange(family.history)}

    for _ in range(2):  # the second time after an answer that was lost
        streams.remove(entries, written=0, skipped=0)
        assert figures(valkey, family)["dropped"] == dropped - sum(one.count for one in entries if one.id not in there)
    assert dropped > 2_000
    rest = [row for entry in streams.read(limit=1_000) for row in decode_rows(entry.rows)]
    assert 2_000 + len(rest) + figures(valkey, family)["dropped"] == 12_000


def test_a_result_that_is_kept_for_longer_outlives_the_budget(
    valkey: redis.Redis, keys: Keys, family: QueueKeys
) -> None:
    records = make(valkey, keys, records_bytes=MEBIBYTE)
    records.write([ended_step(QUEUE, EndedJob("kept", "succeeded", result="42"), kept_ms=86_400_000)])

    end(records, list(ids(5_000)))

    found = records.read("kept")
    assert found is not None
    assert found.result == 42
    assert 0 < valkey.pttl(family.kept_result("kept")) <= 86_400_000


@pytest.mark.parametrize("kept_ms", [0, 86_400_000])
def test_a_mark_outlives_record_and_budget(valkey: redis.Redis, keys: Keys, family: QueueKeys, kept_ms: int) -> None:
    records = make(valkey, keys, records_bytes=MEBIBYTE)
    steps = [
        ended_step(QUEUE, EndedJob("marked", "succeeded"), marked=True, kept_ms=kept_ms),
        live_step(QUEUE, LiveJob("lives", "running")),
        ended_step(QUEUE, EndedJob("other", "succeeded"), in_history=False),
    ]

    assert records.write(steps) == ["written", "late", "written"]
    end(records, list(ids(5_000)))

    assert 0 < MARK_TTL_MS - valkey.pttl(family.ended_mark("marked")) < 60_000
    both = JobRecords(records.calls, keys, [QUEUE, "another"])
    assert [both.is_marked(id_) for id_ in ("marked", "lives", "other")] == [True, False, False]
    assert records.states(["other"]) == [None]


def test_figures_stay_true_whatever_the_sizes(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records, draws = make(valkey, keys, records_bytes=MEBIBYTE, history_bytes=MEBIBYTE), random.Random(7)
    for number in range(300):
        jobs = [
            EndedJob(f"{number}-{n}", "succeeded", result="x" * draws.choice((0, 10, 5_000)))
            for n in range(draws.randint(1, 20))
        ]
        records.write([ended_step(QUEUE, job) for job in jobs])

    found = figures(valkey, family)
    real = sum(
        len(id_) + len(record) + 64
        for bucket in buckets(valkey, family)
        for id_, record in valkey.hgetall(bucket).items()
    )
    streamed = sum(len(fields[b"rows"]) + 64 for _, fields in valkey.xrange(family.history))
    assert found["bytes"] == real <= MEBIBYTE
    assert found["history"] == streamed <= MEBIBYTE


def test_a_key_of_a_wrong_type_costs_its_own_records_alone(
    valkey: redis.Redis, keys: Keys, family: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    records = JobRecords(RedisCalls(valkey), keys, [QUEUE, "sound"])
    valkey.set(family.history, "no stream")

    answers = records.write([ended_step(queue, EndedJob(queue, "succeeded")) for queue in (QUEUE, "sound")])

    assert answers == ["refused", "written"]
    assert "job work of queue work is not recorded as succeeded" in caplog.text
    assert len(HistoryStreams(records.calls, keys, ["sound"]).read(limit=10)) >= 1


@pytest.mark.parametrize("garbage", [b"", b"0" * 20, b"0" * 20 + b"\xc1", b"0" * 20 + b"abc"])
def test_a_live_record_that_cannot_be_read_costs_its_own_step_alone(
    valkey: redis.Redis, keys: Keys, family: QueueKeys, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    records = make(valkey, keys)
    for name in ("bad", "sound"):
        valkey.hset(family.bodies, name, BODY)
    valkey.hset(family.jobs, "bad", garbage)

    answers = records.write([live_step(QUEUE, LiveJob(name, "running", attempt=1)) for name in ("bad", "sound")])

    assert answers == ["refused", "written"]
    assert "job bad of queue work is not recorded as running" in caplog.text
    assert records.write([ended_step(QUEUE, EndedJob("bad", "succeeded", attempt=1))]) == ["written"]


@pytest.mark.parametrize("act", ["move", "dead_letter"])
def test_a_message_moves_once_whatever_the_keys_of_the_history_are(
    valkey: redis.Redis, family: QueueKeys, act: str
) -> None:
    queue, row = QueueOperations(RedisCalls(valkey), family), HistoryRow(b"\x90", MEBIBYTE)
    queue.join("worker/live")
    queue.enqueue([Entry("a", BODY)])
    [grant] = queue.fetch("worker/live", 1, request=1).grants
    valkey.set(family.history, "no stream")

    if act == "move":
        assert queue.move(grant.lease, move="divert", lane="retry", body=BODY, delay_ms=0, row=row)
    else:
        assert queue.dead_letter(grant.lease, b"{}", row)

    assert valkey.lrange(family.waiting("retry")[1] if act == "move" else family.dead, 0, -1) == [b"a"]
    assert queue.held("worker/live") == []


def test_states_of_many_jobs_are_read_in_short_calls(valkey: redis.Redis, keys: Keys, family: QueueKeys) -> None:
    records, names = make(valkey, keys), list(ids(2_050))
    end(records, names)

    before = scripts_called(valkey)
    assert records.states([*names, "nobody"]) == ["succeeded"] * 2_050 + [None]
    assert scripts_called(valkey) - before == 21


def scripts_called(valkey: redis.Redis) -> int:
    commands = valkey.info("commandstats")
    return sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


def test_live_records_without_a_message_are_dropped(broker: RedisBroker) -> None:
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
