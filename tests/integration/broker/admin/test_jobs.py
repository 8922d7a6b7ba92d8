"""Single jobs that an operator cancels or runs before their time; walks over the messages of many queues; counts."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.admin import browse as module
from switchyard.broker.admin import scheduled
from switchyard.broker.admin.browse import compared_fields_of, family_stats, look_through
from switchyard.broker.admin.purge import finish, relocate, set_aside, undo
from switchyard.broker.admin.scheduled import cancel, next_due, run_now, state_counts
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import HistoryStreams, LiveJob, decode_rows, live_step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.schedules.runner import finish_moves
from tests.conftest import BuildBroker
from tests.waiting import wait_for


def rows(parts: Facilities) -> list[tuple[str, str, bytes]]:
    streams = HistoryStreams(parts.records.calls, parts.records.keys, parts.records.queues)
    found = [row for entry in streams.read(limit=100) for row in decode_rows(entry.rows)]
    return [(row.id, row.state, row.body) for row in found]


@pytest.mark.parametrize("delay_ms", [None, 3_600_000])
def test_a_kill_after_the_first_call_leaves_end_and_row(broker, monkeypatch, delay_ms):
    parts = facilities(broker)
    job_id = broker.actors["job"].send_with_options(args=(7,), delay=delay_ms).message_id

    def killed(*args: Any, **options: Any) -> None:
        raise BrokerUnavailable("write", "killed")

    with monkeypatch.context() as kill:
        kill.setattr(JobRecords, "write", killed)
        with pytest.raises(BrokerUnavailable):
            cancel(parts, job_id)

    record = parts.records.read(job_id)
    assert record is not None and record.end_recorded and record.state == "cancelled" and record.args == [7]
    [(row_id, state, body)] = rows(parts)
    assert (row_id, state) == (job_id, "cancelled") and b"7" in body
    assert cancel(parts, job_id) == "ended"


@pytest.mark.parametrize("delay_ms", [None, 3_600_000])
def test_a_cancellation_has_one_row(broker, delay_ms):
    parts = facilities(broker)
    job_id = broker.actors["job"].send_with_options(args=(7,), delay=delay_ms).message_id

    assert cancel(parts, job_id) == "cancelled"

    assert [row[:2] for row in rows(parts)] == [(job_id, "cancelled")]
    assert cancel(parts, "nobody") == "unknown"


@pytest.mark.parametrize("delay_ms", [None, 500])
@pytest.mark.parametrize("undone", [True, False])
def test_a_job_that_a_purge_has_set_aside_is_cancelled_once(broker, run_worker, delay_ms, undone):
    parts, family = facilities(broker), broker.families["work"]
    job = broker.actors["job"]
    kept = job.send(1).message_id
    job_id = job.send_with_options(args=(7,), delay=delay_ms, unique_key="one").message_id
    set_aside(family, "p", by="me", undo_ms=60_000 if undone else 0)

    answers = cancel(parts, job_id), cancel(parts, job_id)
    if undone:
        undo(family, "p")
        with run_worker(broker=broker):
            wait_for(lambda: not broker.client.hlen(family.keys.bodies))
    finish(family, parts.records)

    assert answers == ("cancelled", "ended")
    assert parts.records.states([kept, job_id]) == ["succeeded" if undone else "cancelled", "cancelled"]
    assert [state for id_, state, _ in rows(parts) if id_ == job_id] == ["cancelled"]
    assert broker.client.keys(f"{broker.keys.queue('work').base}*aside*") == []
    assert job.send_with_options(args=(8,), unique_key="one").message_id != job_id


HOUR_MS = 3_600_000
ran: list[Any] = []


@pytest.fixture
def broker(broker: RedisBroker) -> RedisBroker:
    ran.clear()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        ran.append(number)

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=3, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
    def fails_once() -> None:
        ran.append("failed" if "failed" not in ran else "succeeded")
        if ran == ["failed"]:
            raise ValueError("not yet")

    return broker


def later(broker: RedisBroker, number: int = 7, **options: Any) -> str:
    return str(broker.actors["job"].send_with_options(args=(number,), delay=HOUR_MS, **options).message_id)


def test_a_delayed_job_starts_at_once_and_its_wait_counts_from_then(broker, run_worker):
    parts, before = facilities(broker), now_ms()
    chosen, other = later(broker, 7), later(broker, 8)

    with run_worker(broker=broker):  # an idle worker waits for the due time, and is woken
        assert run_now(parts, chosen) == "due"
        wait_for(lambda: ran == [7])
        wait_for(lambda: parts.records.states([chosen, other]) == ["succeeded", "scheduled"])

    record = parts.records.read(chosen)
    assert record is not None and record.attempts == 1
    assert record.due_at is not None and before <= record.due_at <= now_ms()


def test_a_job_that_waits_for_its_retry_runs_its_next_attempt(broker, run_worker):
    parts = facilities(broker)
    job_id = broker.actors["fails_once"].send().message_id

    with run_worker(broker=broker):
        due = wait_for(lambda: (found := parts.records.read(job_id)) and found.state == "retrying" and found)
        assert run_now(parts, job_id) == "due"
        wait_for(lambda: parts.records.states([job_id]) == ["succeeded"])

    record = parts.records.read(job_id)
    assert due.next_attempt_at is not None and due.next_attempt_at > now_ms() + HOUR_MS / 4
    assert record is not None and record.attempts == 2 and ran == ["failed", "succeeded"]


def test_a_paused_queue_keeps_the_job_and_shows_its_new_time(broker, run_worker):
    parts, family = facilities(broker), broker.families["work"]
    administration.pause(family)
    job_id = later(broker)

    with run_worker(broker=broker):
        answers = run_now(parts, job_id), run_now(parts, job_id)
        record = parts.records.read(job_id)
        assert ran == []
        administration.resume(family)
        wait_for(lambda: ran == [7])

    assert answers == ("due", "due")
    assert record is not None and record.next_attempt_at is not None and record.next_attempt_at <= now_ms()


def test_the_answer_says_why_nothing_was_changed(broker):
    parts, family = facilities(broker), broker.families["work"]
    waits = broker.actors["job"].send(1).message_id
    cancelled = later(broker)
    cancel(parts, cancelled)
    body = b'{"actor":"job","sent_at":1,"options":{"deferred_by":"rate_limit"}}'
    family.enqueue([Entry("limited", body)], delay_ms=HOUR_MS)

    answers = [run_now(parts, id_) for id_ in (waits, cancelled, "limited", "no-such-job")]

    assert answers == ["waiting", "ended", "held", "unknown"]
    assert family.calls.command("ZRANGE", family.keys.due("live"), 0, -1) == [b"limited"]


def test_a_body_that_cannot_be_read_goes_where_a_worker_sets_it_aside(broker):
    family = broker.families["work"]
    family.enqueue([Entry("broken", b"{")], delay_ms=HOUR_MS)

    assert run_now(facilities(broker), "broken") == "due"

    family.join("worker/live")
    assert [grant.body for grant in family.fetch("worker/live", 5, request=1).grants] == [b"{"]


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    found = QueueOperations(RedisCalls(valkey), Keys(prefix="cancelled").queue("q"))
    found.join("worker/live")
    return found


def test_a_long_row_of_cancelled_messages_is_dropped_in_bounded_calls(family):
    ids = [f"message-{number}" for number in range(1_200)]
    family.enqueue([Entry(id_, b"") for id_ in ids])
    for id_ in ids:
        administration.cancel(family, {id_: b""})
    family.enqueue([Entry("last", b"")])

    answers = [family.fetch("worker/live", 1, request=request) for request in (1, 2, 3)]

    assert [(len(answer.grants), answer.left) for answer in answers] == [(0, True), (0, True), (1, False)]
    assert answers[2].grants[0].lease.id == b"last"


def test_a_cancelled_message_is_not_relocated_to_where_it_would_start(family):
    target = QueueOperations(family.calls, Keys(prefix="cancelled").queue("other"))
    target.join("worker/live")
    body = b'{"actor":"an_actor","sent_at":1}'
    family.enqueue([Entry("wanted", body), Entry("cancelled", body)])
    administration.cancel(family, {"cancelled": b""})

    *_, told = relocate(family, target, actor="an_actor")

    assert (told.looked_at, told.moved) == (2, 1)
    assert [grant.lease.id for grant in target.fetch("worker/live", 5, request=1).grants] == [b"wanted"]
    assert family.fetch("worker/live", 5, request=1).grants == []
    assert administration.cancel(family, {"cancelled": b""})["cancelled"] == "was cancelled"


NAMES = ("first", "second", "third")


@pytest.fixture
def three(yard_broker: BuildBroker) -> RedisBroker:
    queues = tuple(Queue(name, 1_000, 5_000, 10_000) for name in NAMES)
    three = yard_broker(Yard(queues=queues, pools=(Pool("work", "threads", NAMES, processes=1, slots=4),)))
    for name in NAMES:
        dramatiq.actor(lambda number: None, actor_name=f"job_{name}", queue_name=name, broker=three)
    return three


def families_of(three: RedisBroker) -> list[QueueOperations]:
    return [three.lane(name)[0] for name in NAMES]


def schedule(three: RedisBroker, due: Sequence[int]) -> list[str]:
    """Send messages to the queues in turn, due at given times; return their ids in the order in which they are due."""
    families, sent = families_of(three), []
    for number, due_at in enumerate(due):
        family = families[number % len(families)]
        message = three.actors[f"job_{family.keys.queue}"].send_with_options(args=(number,), delay=HOUR_MS)
        family.calls.command("ZADD", family.keys.due("live"), "XX", due_at, message.message_id)
        sent.append((due_at, message.message_id))
    return [id_ for _, id_ in sorted(sent)]


def test_what_a_clock_ahead_has_delayed_is_due_a_delay_after_now(three, run_worker, monkeypatch):
    """First sends and retries. Times that a person gave, and delays of a right clock, stay as they are."""
    family, day_ms = families_of(three)[0], 24 * HOUR_MS
    monkeypatch.setattr("switchyard.schedules.runner.declared_yard", lambda: facilities(three).yard)
    monkeypatch.setattr(dramatiq, "get_broker", lambda: three)

    @dramatiq.actor(queue_name="first", broker=three, max_retries=3, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
    def fails() -> None:
        raise ValueError

    names = ("sent", "retried", "right", "moved", "given")
    for name in ("sent", "right", "moved"):
        three.enqueue(three.actors["job_first"].message(0).copy(message_id=name), delay=HOUR_MS)
    given = three.actors["job_first"].message_with_options(args=(0,), eta=now_ms() + day_ms)
    three.enqueue(given.copy(message_id="given"))
    three.enqueue(fails.message().copy(message_id="retried"))
    key = {name: family.keys.due("retry" if name == "retried" else "live") for name in names}

    def due_in_ms(name: str) -> int | None:
        found = family.calls.command("ZSCORE", key[name], name)
        return None if found is None else int(float(found)) - now_ms()

    with run_worker(broker=three):
        wait_for(lambda: due_in_ms("retried") and due_in_ms("given"))
    before = {name: due_in_ms(name) or 0 for name in names}
    for name in ("sent", "retried", "moved"):
        family.calls.command("ZINCRBY", key[name], day_ms, name)
    same: Any = ([0], {})
    scheduled.amend([family], "moved", expected=same, arguments=same, due_at_ms=now_ms() + day_ms)

    family.lapsed()
    at_rest = finish_moves()
    family.calls.command("SET", family.keys.swept, now_ms() + day_ms)
    family.lapsed()
    corrected = [finish_moves(), finish_moves()]

    after = {name: due_in_ms(name) or 0 for name in names}
    assert at_rest == 0 and corrected == [2, 0]
    assert after == {name: pytest.approx(before[name] if name != "moved" else day_ms, abs=60_000) for name in names}
    assert before["retried"] > HOUR_MS / 3


def walked(pages: Iterator[list[Any]]) -> list[str]:
    return [seen.id for page in pages for seen in page]


def test_messages_of_all_queues_come_in_the_order_of_their_due_time(three, monkeypatch):
    monkeypatch.setattr(scheduled, "AT_ONCE", 3)
    now = now_ms()
    # Most are due in the same millisecond, as those for midnight are.
    due = [now + HOUR_MS] * 20 + [now + shift * 60_000 for shift in range(12)] + [now + HOUR_MS] * 9
    ordered = schedule(three, due)

    pages = list(next_due(families_of(three), after=None, count=4))

    assert walked(iter(pages)) == ordered
    assert [message.due_at for page in pages for message in page] == sorted(due)
    assert {message.queue for page in pages for message in page} == set(NAMES)
    for place in (0, 5, 11, 12, 30, len(due) - 1):
        after = (sorted(due)[place], ordered[place])
        assert walked(next_due(families_of(three), after=after, count=7)) == ordered[place + 1 :]


def test_what_starts_between_two_pages_moves_no_other_past_the_reader(three):
    now = now_ms()
    ordered = schedule(three, [now + shift * 60_000 for shift in range(9)])
    first = next(next_due(families_of(three), after=None, count=3))
    for family in families_of(three):
        family.calls.command("ZREM", family.keys.due("live"), *ordered[:3])

    rest = walked(next_due(families_of(three), after=(first[-1].due_at or 0, first[-1].id), count=3))

    assert [seen.id for seen in first] + rest == ordered


def test_a_page_of_a_long_schedule_costs_few_calls(three, monkeypatch):
    family = families_of(three)[0]
    due_at = now_ms() + HOUR_MS
    ids = [f"{number:06}" for number in range(20_000)]
    for start in range(0, len(ids), 1_000):
        chunk = ids[start : start + 1_000]
        family.calls.command("ZADD", family.keys.due("live"), *(word for id_ in chunk for word in (due_at, id_)))
        family.calls.command("HSET", family.keys.bodies, *(word for id_ in chunk for word in (id_, "{}")))
    asked: list[Any] = []
    whole, single = family.calls.pipeline, family.calls.command
    monkeypatch.setattr(family.calls, "pipeline", lambda commands: asked.append(commands) or whole(commands))
    monkeypatch.setattr(family.calls, "command", lambda *words: asked.append(words) or single(*words))

    page = next(next_due(families_of(three), after=(due_at, ids[14_999]), count=50))

    assert [seen.id for seen in page] == ids[15_000:15_050]
    # One read of every schedule, a search by halves among 20,000 of one millisecond, one read there, one of the bodies.
    assert len(asked) <= 19


def send(three: RedisBroker, name: str, count: int, **options: Any) -> list[str]:
    actor = three.actors[f"job_{name}"]
    return [actor.send_with_options(args=(number,), **options).message_id for number in range(count)]


@pytest.mark.parametrize(("at_once", "a_trip"), [(3, 4), (2, 100), (500, 2_000)])
def test_each_message_has_its_own_body_however_it_is_read(three, monkeypatch, at_once, a_trip):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    monkeypatch.setattr(module, "A_TRIP", a_trip)
    waiting = {name: send(three, name, count) for name, count in (("first", 11), ("second", 4))}
    scheduled = send(three, "second", 5, delay=HOUR_MS)
    family = three.lane("second")[0]
    found = family.calls.command("ZRANGE", family.keys.due("live"), 0, -1, "WITHSCORES")
    due = {id_.decode(): int(score) for id_, score in zip(found[::2], found[1::2], strict=True)}

    looked = look_through(families_of(three)[:2])

    seen = {message.id: message for message in looked.messages}
    assert len(looked.messages) == len(seen) == 20
    assert looked.cut == []
    for name, ids in waiting.items():
        found = [(seen[id_].queue, seen[id_].lane, seen[id_].place, seen[id_].due_at) for id_ in ids]
        assert found == [(name, "live", "waiting", None)] * len(ids)
        assert [argument_of(seen[id_].body) for id_ in ids] == [f"[{number}]" for number in range(len(ids))]
    assert [(seen[id_].place, seen[id_].due_at) for id_ in scheduled] == [("scheduled", due[id_]) for id_ in scheduled]
    assert [argument_of(seen[id_].body) for id_ in scheduled] == [f"[{number}]" for number in range(5)]


def test_a_message_that_leaves_between_its_id_and_its_body_is_left_out(three):
    stays, leaves, later = send(three, "first", 3)
    family = families_of(three)[0]
    family.calls.command("HDEL", family.keys.bodies, leaves)

    looked = look_through([family])

    assert [(message.id, argument_of(message.body)) for message in looked.messages] == [(stays, "[0]"), (later, "[2]")]


def test_a_queue_with_more_messages_than_are_read_is_named(three):
    first, second = send(three, "first", 9), send(three, "second", 3)

    looked = look_through(families_of(three)[:2], most=5)

    assert looked.cut == ["first"]
    assert [message.id for message in looked.messages] == first[:5] + second


def argument_of(body: bytes) -> str:
    fields = compared_fields_of(body)
    assert fields is not None
    return bytes(fields.args).decode()


def sent(age_ms: int) -> bytes:
    """Return a message that was sent so long ago."""
    return json.dumps({"actor": "an_actor", "sent_at": now_ms() - age_ms}).encode()


def test_the_oldest_held_message_counts_until_it_ends(valkey):
    calls = RedisCalls(valkey)
    family = QueueOperations(calls, Keys(prefix="stats").queue("old"))
    for owner in ("one/live", "two/live", "three/retry"):
        family.join(owner)
    family.enqueue([Entry("a", sent(5_000)), Entry("b", sent(9_000)), Entry("c", sent(1_000))])
    family.enqueue([Entry("r", sent(90_000))], lane="retry")
    [first] = family.fetch("one/live", 1, request=1).grants
    [second] = family.fetch("two/live", 1, request=1).grants
    family.fetch("three/retry", 1, request=1)

    held = family_stats(calls, family.keys, ages_held=True)
    family.ack("two/live", [second.lease])
    later = family_stats(calls, family.keys, ages_held=True)
    family.ack("one/live", [first.lease])
    waiting = family_stats(calls, family.keys, ages_held=True)

    assert held.oldest_held_age_ms is not None and 9_000 <= held.oldest_held_age_ms < 14_000
    assert later.oldest_held_age_ms is not None and 5_000 <= later.oldest_held_age_ms < 9_000
    assert waiting.oldest_held_age_ms is None
    assert waiting.oldest_unfinished_age_ms == waiting.live.oldest_age_ms
    assert family_stats(calls, family.keys).oldest_held_age_ms is None


def test_every_place_of_every_family_counts_once(valkey):
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
