"""Facts: counts are added once, by time; buckets become minutes, and nothing is lost by a repetition."""

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import (
    AGE_MS,
    BUCKET_MS,
    DEPTH,
    MINUTE_MS,
    MOST_OWNERS,
    RUN_MS,
    RUNS,
    SENT,
    SUCCEEDED,
    WAITS,
    FactStore,
    bucket_of,
    field,
    percentile_ms,
)

OLD_MS = 5 * MINUTE_MS


@pytest.fixture
def store(valkey: redis.Redis) -> FactStore:
    return FactStore(RedisCalls(valkey), Keys())


def past(store: FactStore, valkey: redis.Redis, at_ms: int, **counts: int) -> None:
    """Put counts of the actor ``mail`` into the bucket of a moment."""
    codes = {"sent": SENT, "succeeded": SUCCEEDED, "depth": DEPTH}
    key = Keys().facts_bucket(bucket_of(at_ms))
    for name, count in counts.items():
        valkey.hincrby(key, field("a:mail", codes[name]), count)


def test_a_flush_that_is_repeated_counts_once(store):
    counts = {"a:mail": {SUCCEEDED: 3, WAITS: 3}, "a:two words": {SUCCEEDED: 1}}

    assert all(store.add("pool:host:1", 7, counts) for _ in range(3))
    assert store.add("pool:host:2", 1, {"a:mail": {SUCCEEDED: 2}})
    assert store.add("pool:host:1", 8, {"a:mail": {SUCCEEDED: 10}})

    found = yard_facts.merged(of.get("a:mail", {}) for _, of in store.recent(store.server_ms()))
    assert found == {SUCCEEDED: 15, WAITS: 3}
    assert [of["a:two words"] for _, of in store.recent(store.server_ms()) if "a:two words" in of] == [{SUCCEEDED: 1}]


def test_a_counter_adds_what_it_grew_by_and_nothing_when_it_was_reset(store):
    def sample(mail: int, **more: int) -> None:
        readings = {"mail": mail} | more
        store.sample({f"q\n{name}": (field(f"a:{name}", SENT), count) for name, count in readings.items()}, {})

    for reading in (100, 140, 140, 5, 7):
        sample(reading)
    sample(7, other=2)

    found = store.recent(store.server_ms())
    assert yard_facts.merged(of.get("a:mail", {}) for _, of in found) == {SENT: 42}
    assert yard_facts.merged(of.get("a:other", {}) for _, of in found) == {SENT: 2}, "a new counter counts from 0"


def test_closed_minutes_are_folded_once_with_the_largest_of_gauges(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // MINUTE_MS * MINUTE_MS
    past(store, valkey, minute, sent=3, depth=7)
    past(store, valkey, minute + 2 * BUCKET_MS, sent=4, depth=2)
    past(store, valkey, minute + MINUTE_MS, sent=1)
    store.sample({}, {"a:mail": {AGE_MS: 9}})

    folded = store.fold(now)

    expected = {minute: {SENT: 7, DEPTH: 7}, minute + MINUTE_MS: {SENT: 1}}
    assert folded > 2
    assert store.fold(now) == 0
    kept = {at: of for at, of in store.minutes("a:mail", minute, now).items() if of}
    assert kept == expected
    assert store.all_minutes(minute, now)["a:mail"] == {SENT: 8, DEPTH: 7}


def test_a_minute_keeps_the_owners_that_ran_longest_and_repeats_the_same(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // MINUTE_MS * MINUTE_MS
    for at in (minute, minute + BUCKET_MS):
        runs = {f"{RUN_MS} o:{n:03}": 1 + n for n in range(MOST_OWNERS + 2)} | {f"{RUN_MS} o:other": 5}
        valkey.hset(Keys().facts_bucket(at), mapping=runs)

    for _ in range(2):
        store.fold(now)
        found = {name: of for name, of in store.all_minutes(minute, now).items() if name.startswith("o:") and of}
        assert len(found) == MOST_OWNERS + 1
        assert found["o:other"] == {RUN_MS: 2 * (5 + 1 + 2)} and found["o:002"] == {RUN_MS: 6}
        valkey.hdel(Keys().facts_span(yard_facts.span_of(minute)), yard_facts.DONE)


def test_a_minute_that_was_read_half_is_folded_again_as_it_is(store, valkey):
    now = store.server_ms()
    minute = (now - OLD_MS) // MINUTE_MS * MINUTE_MS
    past(store, valkey, minute, sent=3)
    store.fold(now)
    valkey.hdel(Keys().facts_span(yard_facts.span_of(minute)), yard_facts.DONE)  # as if the mark had not been written

    store.fold(now)

    assert store.minutes("a:mail", minute, minute + 1) == {minute: {SENT: 3}}


def test_what_others_wrote_into_the_keys_is_left_out(store, valkey):
    now = store.server_ms()
    span = yard_facts.span_of(now)
    valkey.hset(Keys().facts_bucket(bucket_of(now)), mapping={"x y": 1, "1 a:mail": "many", "2 a:mail": 4})
    valkey.hset(Keys().facts_span(span), mapping={"a:mail": b"\xc1", "#": b"no"})

    assert yard_facts.merged(of.get("a:mail", {}) for _, of in store.recent(now)) == {1: 0, 2: 4}
    assert store.minutes("a:mail", span, span + 1) == {}
    store.fold(now)


@pytest.mark.parametrize(("share", "low", "high"), [(0.5, 40, 80), (0.95, 2_560, 5_120)])
def test_a_percentile_lies_within_its_class(share, low, high):
    counts = {RUNS + 4: 90, RUNS + 10: 10}  # up to 80 ms, up to 5.12 s

    assert low <= (percentile_ms(counts, RUNS, share) or 0) <= high
    assert percentile_ms({}, RUNS, share) is None


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
