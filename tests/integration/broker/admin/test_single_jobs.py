"""Single jobs that an operator cancels or runs before their time; cancelled messages hold up nothing."""

from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.admin.purge import finish, relocate, set_aside, undo
from switchyard.broker.admin.scheduled import cancel, run_now
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import HistoryStreams, decode_rows
from switchyard.broker.stores.job_records import JobRecords
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
    again = job.send_with_options(args=(8,), unique_key="one")
    assert again.message_id != job_id


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
        wait_for(lambda: parts.records.states([job_id]) == ["retrying"])
        due = parts.records.read(job_id)
        assert run_now(parts, job_id) == "due"
        wait_for(lambda: parts.records.states([job_id]) == ["succeeded"])

    record = parts.records.read(job_id)
    assert due is not None and due.next_attempt_at is not None and due.next_attempt_at > now_ms() + HOUR_MS / 4
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
