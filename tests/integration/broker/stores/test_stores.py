"""Records of ended jobs leave oldest first within their budget; facts are counted once, by time, and become minutes."""

import random
import re
import uuid
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, HistoryRow, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import source
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.history_streams import (
    ENDED,
    EndedJob,
    HistoryStreams,
    LiveJob,
    Step,
    decode_rows,
    encode,
    ended_step,
    live_step,
    sequence,
)
from switchyard.broker.stores.job_records import MARK_TTL_MS, JobRecords, RecordLimits, sweep

MEBIBYTE = 1024 * 1024
BODY = b'{"actor":"a","sent_at":1,"args":["' + b"x" * 200 + b'"]}'
QUEUE = "work"


class Server:
    """A client with keys of the test's own."""

    def __init__(self, valkey: redis.Redis) -> None:
        self.valkey, self.keys = valkey, Keys(f"test-{uuid.uuid4().hex[:8]}")
        self.family = self.keys.queue(QUEUE)

    def make(self, **limits: int) -> JobRecords:
        return JobRecords(RedisCalls(self.valkey), self.keys, [QUEUE], limits=RecordLimits(**limits))

    def figures(self) -> dict[str, int]:
        return {name.decode(): int(value) for name, value in self.valkey.hgetall(self.family.ended).items()}

    def buckets(self) -> list[bytes]:
        return list(self.valkey.scan_iter(f"{self.family.ended}:*", count=10_000))


@pytest.fixture
def server(valkey: redis.Redis) -> Server:
    return Server(valkey)


def ids(count: int, name: str = "job") -> Iterator[str]:
    return (f"{name}-{number:06d}" for number in range(count))


def end(records: JobRecords, names: list[str], *, at_once: int = 200) -> None:
    for start in range(0, len(names), at_once):
        jobs = [EndedJob(id_, "succeeded", attempt=1, body=BODY) for id_ in names[start : start + at_once]]
        records.write([ended_step(QUEUE, job) for job in jobs])


def test_the_oldest_leave_first_and_live_ones_never(server):
    records = server.make(records_bytes=MEBIBYTE)
    live = list(ids(50, "live"))
    queue = QueueOperations(records.calls, server.family)
    queue.enqueue([Entry(id_, BODY) for id_ in live])
    records.write([live_step(QUEUE, LiveJob(id_, "running", attempt=1)) for id_ in live])

    ended = list(ids(10_000))
    end(records, ended)

    known = [state is not None for state in records.states(ended[::50])]
    assert known == sorted(known), "an older one is known, a newer one is not"
    assert not known[0] and known[-1]
    assert set(records.states(live)) == {"running"}
    kept = sum(server.valkey.hlen(bucket) for bucket in server.buckets())
    used = sum(server.valkey.memory_usage(bucket, samples=0) for bucket in server.buckets())
    assert kept > 1_000
    assert used < 1.35 * MEBIBYTE, "what is counted is what is used"
    assert server.figures()["bytes"] <= MEBIBYTE
    assert len(server.buckets()) <= 16


@pytest.mark.parametrize("value", [b"9" * 19, b"1e308", b"inf", b"nan", b"-9e18", b"1.5", b"x"])
@pytest.mark.parametrize("field", ["first", "last"])
def test_numbers_of_another_hand_hold_nobody_up(server, field, value):
    """Each call would count from bucket to bucket for ever, and the server with it."""
    records = server.make()
    end(records, ["before"])
    for name, size in (("a", 0), ("b", MEBIBYTE * 1024)):  # the second begins a bucket
        server.valkey.hset(server.family.ended, mapping={field: value, "size": size})
        records.states(["before"])
        end(records, [name])
        assert records.states([name]) == ["succeeded"]


def test_records_leave_after_their_time(server):
    records = server.make(ended_ms=3_600_000)

    end(records, ["job"])

    [bucket] = server.buckets()
    assert 3_600_000 < server.valkey.pttl(bucket) <= 4_200_000


def test_a_bucket_that_expired_is_no_longer_counted(server):
    records = server.make()
    end(records, ["old"])
    server.valkey.delete(*server.buckets())
    server.valkey.hset(server.family.ended, "at", 1)

    end(records, ["new"])

    found = server.figures()
    assert (found["first"], found["last"]) == (2, 2)
    assert found["bytes"] == found["size"]
    assert records.states(["old", "new"]) == [None, "succeeded"]


def test_rows_over_the_budget_of_the_history_are_dropped_and_counted(server):
    records = server.make(history_bytes=MEBIBYTE)

    end(records, list(ids(10_000)), at_once=100)

    rows = [row.id for _, fields in server.valkey.xrange(server.family.history) for row in decode_rows(fields[b"rows"])]
    found = server.figures()
    assert rows == list(ids(10_000))[-len(rows) :], "the newest stay"
    assert len(rows) + found["dropped"] == 10_000
    assert found["history"] <= MEBIBYTE
    assert server.valkey.memory_usage(server.family.history, samples=0) < 1.35 * MEBIBYTE


def test_entries_of_another_hand_are_dropped_like_others(server, caplog):
    records = server.make(history_bytes=MEBIBYTE)
    for fields in ({"n": "many", "rows": b""}, {"n": "1"}, {"other": ""}, {"n": "1e3", "rows": b""}, {"n": "9" * 30}):
        server.valkey.xadd(server.family.history, fields)

    end(records, list(ids(10_000)), at_once=100)

    rows = [row for _, fields in server.valkey.xrange(server.family.history) for row in decode_rows(fields[b"rows"])]
    assert not caplog.records
    assert len(rows) + server.figures()["dropped"] == 10_000 + 5


def test_what_the_history_took_over_is_no_longer_counted(server):
    records = server.make()
    end(records, list(ids(1_000)), at_once=30)
    streams = HistoryStreams(records.calls, server.keys, [QUEUE])
    entries = streams.read(limit=1_000)

    streams.remove(entries[:20], written=600, skipped=0)
    streams.remove(entries[:20], written=0, skipped=0)
    left = server.figures()["history"]
    streams.remove(entries[20:], written=400, skipped=0)

    assert left > 0
    assert server.figures()["history"] == 0
    assert server.valkey.xlen(server.family.history) == 0


def test_rows_that_were_written_while_the_budget_removed_them_are_not_counted_as_dropped(server):
    records = server.make(history_bytes=MEBIBYTE)
    streams = HistoryStreams(records.calls, server.keys, [QUEUE])
    end(records, list(ids(2_000)), at_once=100)
    entries = streams.read(limit=1_000)
    end(records, [f"later-{number}" for number in range(10_000)], at_once=100)
    dropped = server.figures()["dropped"]
    there = {id_ for id_, _ in server.valkey.xrange(server.family.history)}

    for _ in range(2):  # the second time after an answer that was lost
        streams.remove(entries, written=0, skipped=0)
        assert server.figures()["dropped"] == dropped - sum(one.count for one in entries if one.id not in there)
    assert dropped > 2_000
    rest = [row for entry in streams.read(limit=1_000) for row in decode_rows(entry.rows)]
    assert 2_000 + len(rest) + server.figures()["dropped"] == 12_000


def test_a_result_that_is_kept_for_longer_outlives_the_budget(server):
    records = server.make(records_bytes=MEBIBYTE)
    records.write([ended_step(QUEUE, EndedJob("kept", "succeeded", result="42"), kept_ms=86_400_000)])

    end(records, list(ids(5_000)))

    found = records.read("kept")
    assert found is not None and found.result == 42
    assert 0 < server.valkey.pttl(server.family.kept_result("kept")) <= 86_400_000


@pytest.mark.parametrize("kept_ms", [0, 86_400_000])
def test_a_mark_outlives_record_and_budget(server, kept_ms):
    records = server.make(records_bytes=MEBIBYTE)
    steps = [
        ended_step(QUEUE, EndedJob("marked", "succeeded"), marked=True, kept_ms=kept_ms),
        live_step(QUEUE, LiveJob("lives", "running")),
        ended_step(QUEUE, EndedJob("other", "succeeded"), in_history=False),
    ]

    assert records.write(steps) == ["written", "late", "written"]
    end(records, list(ids(5_000)))

    assert 0 < MARK_TTL_MS - server.valkey.pttl(server.family.ended_mark("marked")) < 60_000
    both = JobRecords(records.calls, server.keys, [QUEUE, "another"])
    assert [both.is_marked(id_) for id_ in ("marked", "lives", "other")] == [True, False, False]
    assert records.states(["lives", "other"]) == [None, None]


def test_figures_stay_true_whatever_the_sizes(server):
    records, draws = server.make(records_bytes=MEBIBYTE, history_bytes=MEBIBYTE), random.Random(7)
    for number in range(300):
        jobs = [
            EndedJob(f"{number}-{n}", "succeeded", result="x" * draws.choice((0, 10, 5_000)))
            for n in range(draws.randint(1, 20))
        ]
        records.write([ended_step(QUEUE, job) for job in jobs])

    found = server.figures()
    real = sum(
        len(id_) + len(record) + 64
        for bucket in server.buckets()
        for id_, record in server.valkey.hgetall(bucket).items()
    )
    streamed = sum(len(fields[b"rows"]) + 64 for _, fields in server.valkey.xrange(server.family.history))
    assert found["bytes"] == real <= MEBIBYTE
    assert found["history"] == streamed <= MEBIBYTE


def test_a_key_of_a_wrong_type_costs_its_own_records_alone(server, caplog):
    records = JobRecords(RedisCalls(server.valkey), server.keys, [QUEUE, "sound"])
    server.valkey.set(server.family.history, "no stream")

    answers = records.write([ended_step(queue, EndedJob(queue, "succeeded")) for queue in (QUEUE, "sound")])

    assert answers == ["refused", "written"]
    assert "job work of queue work is not recorded as succeeded" in caplog.text
    assert len(HistoryStreams(records.calls, server.keys, ["sound"]).read(limit=10)) >= 1


@pytest.mark.parametrize("garbage", [b"", b"0" * 20, b"0" * 20 + b"\xc1", b"0" * 20 + b"abc"])
def test_a_live_record_that_cannot_be_read_costs_its_own_step_alone(server, caplog, garbage):
    records = server.make()
    for name in ("bad", "sound"):
        server.valkey.hset(server.family.bodies, name, BODY)
    server.valkey.hset(server.family.jobs, "bad", garbage)

    answers = records.write([live_step(QUEUE, LiveJob(name, "running", attempt=1)) for name in ("bad", "sound")])

    assert answers == ["refused", "written"]
    assert "job bad of queue work is not recorded as running" in caplog.text
    assert records.write([ended_step(QUEUE, EndedJob("bad", "succeeded", attempt=1))]) == ["written"]


@pytest.mark.parametrize("act", ["move", "dead_letter"])
def test_a_message_moves_once_whatever_the_keys_of_the_history_are(server, act):
    queue, row = QueueOperations(RedisCalls(server.valkey), server.family), HistoryRow(b"\x90", MEBIBYTE)
    queue.join("worker/live")
    queue.enqueue([Entry("a", BODY)])
    [grant] = queue.fetch("worker/live", 1, request=1).grants
    server.valkey.set(server.family.history, "no stream")

    if act == "move":
        assert queue.move(grant.lease, move="divert", lane="retry", body=BODY, delay_ms=0, row=row)
    else:
        assert queue.dead_letter(grant.lease, b"{}", row)

    assert server.valkey.lrange(server.family.waiting("retry")[1] if act == "move" else server.family.dead, 0, -1) == [
        b"a"
    ]
    assert queue.held("worker/live") == []


def test_states_of_many_jobs_are_read_in_short_calls(server):
    records, names = server.make(), list(ids(2_050))
    end(records, names)

    before = scripts_called(server.valkey)
    assert records.states([*names, "nobody"]) == ["succeeded"] * 2_050 + [None]
    assert scripts_called(server.valkey) - before == 21


def scripts_called(valkey: redis.Redis) -> int:
    commands = valkey.info("commandstats")
    return sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


def test_live_records_without_a_message_are_dropped(broker):
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


LATE = b'{"actor":"a","sent_at":1}'


class Yard:
    """One queue with a message ``job`` that waits, and its records."""

    def __init__(self, valkey: redis.Redis) -> None:
        keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
        calls = RedisCalls(valkey)
        self.records = JobRecords(calls, keys, [QUEUE])
        self.history = HistoryStreams(calls, keys, [QUEUE])
        self.family = QueueOperations(calls, keys.queue(QUEUE))
        self.family.enqueue([Entry("job", LATE)])

    def live(self, state: str = "running", **fields: int) -> str:
        return self._written(live_step(QUEUE, LiveJob("job", state, **fields)))

    def end(self, state: str, *, kept_ms: int = 0, **fields: int) -> str:
        return self._written(ended_step(QUEUE, EndedJob("job", state, body=LATE, **fields), kept_ms=kept_ms))

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
def test_an_end_before_a_requeue_leaves_the_job_running(yard, state, kept_ms):
    yard.live(attempt=1, generation=1, started_at=2_000)
    yard.records.follow("job")

    assert yard.end(state, attempt=5, started_at=1_000, finished_at=1_500, kept_ms=kept_ms) == "late"

    assert yard.shown == ("running", 1, 1)
    assert yard.rows == 1
    stream = yard.records.stream_key("job", QUEUE)
    assert yard.records.calls.command("EXISTS", stream) == 0, "followers are not told of an end"
    assert yard.end("succeeded", attempt=1, generation=1, started_at=2_000, finished_at=3_000) == "written"
    assert yard.shown == ("succeeded", 1, 1)


def test_an_end_of_a_lost_lease_leaves_the_next_attempt_running(yard):
    yard.live(attempt=2, started_at=2_000)

    assert yard.end("succeeded", attempt=1, started_at=1_000, finished_at=2_500) == "late"
    assert yard.shown == ("running", 0, 2)


def test_a_death_before_a_requeue_leaves_the_later_end(yard):
    yard.end("succeeded", attempt=1, generation=1, started_at=2_000, finished_at=3_000)

    assert yard.end("dead", attempt=5, started_at=1_000, finished_at=1_500) == "late"
    assert yard.shown == ("succeeded", 1, 1)


def test_a_job_ends_that_was_cancelled_or_refused_before_its_next_start(yard):
    yard.live(attempt=2, started_at=1_000)  # its worker died

    assert yard.end("cancelled", attempt=1, finished_at=2_000) == "written"
    assert yard.shown == ("cancelled", 0, 1)


def test_a_repeated_end_is_written_again(yard):
    for _ in range(2):
        assert yard.end("dead", attempt=1, started_at=1_000, finished_at=1_500) == "written"
    assert yard.shown == ("dead", 0, 1)


@pytest.mark.parametrize("state", ["dead", "succeeded"])
def test_records_of_an_earlier_job_of_the_same_id_hold_up_no_end(yard, state):
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
def test_the_server_places_an_end_as_python_does(valkey, state, generation, attempt, started_at, attempts):
    ended = EndedJob("j-1", state, attempt=attempt, generation=generation, started_at=started_at, finished_at=9)

    place: Any = valkey.eval(f"{FUNCTIONS}\nreturn (place_of(ARGV[1]))", 0, encode(ended))

    assert place == sequence(generation=generation, attempts=attempts, state=state)


def test_a_life_goes_on_from_step_to_step():
    life = [
        sequence(generation=generation, attempts=attempts, state=state)
        for generation in (0, 1)
        for attempts, state in [(0, "queued"), (1, "running"), (1, "retrying"), (2, "running"), (2, "dead")]
    ]

    assert life == sorted(set(life))


OLD_MS = 5 * yard_facts.MINUTE_MS


@pytest.fixture
def store(valkey: redis.Redis) -> yard_facts.FactStore:
    return yard_facts.FactStore(RedisCalls(valkey), Keys())


def past(store: yard_facts.FactStore, valkey: redis.Redis, at_ms: int, **counts: int) -> None:
    """Put counts of the actor ``mail`` into the bucket of a moment."""
    codes = {"sent": yard_facts.SENT, "succeeded": yard_facts.SUCCEEDED, "depth": yard_facts.DEPTH}
    key = Keys().facts_bucket(yard_facts.bucket_of(at_ms))
    for name, count in counts.items():
        valkey.hincrby(key, yard_facts.field("a:mail", codes[name]), count)


def test_a_flush_that_is_repeated_counts_once(store):
    counts = {"a:mail": {yard_facts.SUCCEEDED: 3, yard_facts.WAITS: 3}, "a:two words": {yard_facts.SUCCEEDED: 1}}

    assert all(store.add("pool:host:1", 7, counts) for _ in range(3))
    assert store.add("pool:host:2", 1, {"a:mail": {yard_facts.SUCCEEDED: 2}})
    assert store.add("pool:host:1", 8, {"a:mail": {yard_facts.SUCCEEDED: 10}})

    found = yard_facts.merged(of.get("a:mail", {}) for _, of in store.recent(store.server_ms()))
    assert found == {yard_facts.SUCCEEDED: 15, yard_facts.WAITS: 3}
    assert [of["a:two words"] for _, of in store.recent(store.server_ms()) if "a:two words" in of] == [
        {yard_facts.SUCCEEDED: 1}
    ]


def test_a_counter_adds_what_it_grew_by_and_nothing_when_it_was_reset(store):
    def sample(mail: int, **more: int) -> None:
        readings = {"mail": mail} | more
        store.sample(
            {f"q\n{name}": (yard_facts.field(f"a:{name}", yard_facts.SENT), count) for name, count in readings.items()},
            {},
        )

    for reading in (100, 140, 140, 5, 7):
        sample(reading)
    sample(7, other=2)

    found = store.recent(store.server_ms())
    assert yard_facts.merged(of.get("a:mail", {}) for _, of in found) == {yard_facts.SENT: 42}
    assert yard_facts.merged(of.get("a:other", {}) for _, of in found) == {yard_facts.SENT: 2}, (
        "a new counter counts from 0"
    )


def test_closed_minutes_are_folded_once_with_the_largest_of_gauges(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // yard_facts.MINUTE_MS * yard_facts.MINUTE_MS
    past(store, valkey, minute, sent=3, depth=7)
    past(store, valkey, minute + 2 * yard_facts.BUCKET_MS, sent=4, depth=2)
    past(store, valkey, minute + yard_facts.MINUTE_MS, sent=1)
    store.sample({}, {"a:mail": {yard_facts.AGE_MS: 9}})

    folded = store.fold(now)

    expected = {minute: {yard_facts.SENT: 7, yard_facts.DEPTH: 7}, minute + yard_facts.MINUTE_MS: {yard_facts.SENT: 1}}
    assert folded > 2
    assert store.fold(now) == 0
    assert {at: of for at, of in store.minutes("a:mail", minute, now).items() if of} == expected
    assert store.all_minutes(minute, now)["a:mail"] == {yard_facts.SENT: 8, yard_facts.DEPTH: 7}


def test_a_minute_keeps_the_owners_that_ran_longest_and_repeats_the_same(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // yard_facts.MINUTE_MS * yard_facts.MINUTE_MS
    for at in (minute, minute + yard_facts.BUCKET_MS):
        runs = {f"{yard_facts.RUN_MS} o:{n:03}": 1 + n for n in range(yard_facts.MOST_OWNERS + 2)} | {
            f"{yard_facts.RUN_MS} o:other": 5
        }
        valkey.hset(Keys().facts_bucket(at), mapping=runs)

    for _ in range(2):
        store.fold(now)
        found = {name: of for name, of in store.all_minutes(minute, now).items() if name.startswith("o:") and of}
        assert len(found) == yard_facts.MOST_OWNERS + 1
        assert found["o:other"] == {yard_facts.RUN_MS: 2 * (5 + 1 + 2)} and found["o:002"] == {yard_facts.RUN_MS: 6}
        valkey.hdel(Keys().facts_span(yard_facts.span_of(minute)), yard_facts.DONE)


def test_a_minute_that_was_read_half_is_folded_again_as_it_is(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // yard_facts.MINUTE_MS * yard_facts.MINUTE_MS
    past(store, valkey, minute, sent=3)
    store.fold(now)
    valkey.hdel(Keys().facts_span(yard_facts.span_of(minute)), yard_facts.DONE)  # as if the mark had not been written

    store.fold(now)

    assert store.minutes("a:mail", minute, minute + 1) == {minute: {yard_facts.SENT: 3}}


def test_what_others_wrote_into_the_keys_is_left_out(store, valkey):
    now = store.server_ms()
    span = yard_facts.span_of(now)
    valkey.hset(Keys().facts_bucket(yard_facts.bucket_of(now)), mapping={"x y": 1, "1 a:mail": "many", "2 a:mail": 4})
    valkey.hset(Keys().facts_span(span), mapping={"a:mail": b"\xc1", "#": b"no"})

    assert yard_facts.merged(of.get("a:mail", {}) for _, of in store.recent(now)) == {1: 0, 2: 4}
    assert store.minutes("a:mail", span, span + 1) == {}
    store.fold(now)


@pytest.mark.parametrize(("share", "low", "high"), [(0.5, 40, 80), (0.95, 2_560, 5_120)])
def test_a_percentile_lies_within_its_class(share, low, high):
    counts = {yard_facts.RUNS + 4: 90, yard_facts.RUNS + 10: 10}  # up to 80 ms, up to 5.12 s

    assert low <= (yard_facts.percentile_ms(counts, yard_facts.RUNS, share) or 0) <= high
    assert yard_facts.percentile_ms({}, yard_facts.RUNS, share) is None


def test_sends_are_counted_once_by_actor_and_delay_and_beyond_1000_names_together(valkey):
    family = QueueOperations(RedisCalls(valkey), Keys().queue("work"))
    bodies = [f'{{"actor":"{name}"}}'.encode() for name in ("mail", "mail", "mailer", "mail")]
    entries = [Entry(f"id-{number}", body) for number, body in enumerate(bodies)]

    for _ in range(2):  # the second call adds nothing
        family.enqueue(entries)
    family.enqueue([Entry("late", bodies[0])], delay_ms=130_000)
    valkey.hset(family.keys.sends, mapping={f"actor {number}": 1 for number in range(997)})
    family.enqueue([Entry("new", b'{"actor":"new"}'), Entry("none", b"no body")])
    family.enqueue([Entry("known", bodies[2])])

    found = {name: int(count) for name, count in valkey.hgetall(family.keys.sends).items()}  # type: ignore[union-attr]
    assert (found[b"mail"], found[b"mailer"], found[b"mail\n1"]) == (3, 2, 1)
    assert found[b"other"] == 2 and b"new" not in found
