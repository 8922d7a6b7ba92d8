"""Bulk acts on jobs, cancelled or run again, each once whatever is killed; alerts that are acknowledged together."""

import threading
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration
from switchyard.broker.stores.history_streams import decode_rows
from switchyard.bulk import runner
from switchyard.bulk.kinds import kind_of
from switchyard.history.models import JobRow
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(facilities):
    """An actor of the real yard that notes what ran."""

    @dramatiq.actor(actor_name="work", queue_name="urgent", max_retries=0)
    def work(number: int = 0, customer: str = "") -> None:
        pass

    return work


def left(facilities: Facilities, queue: str = "urgent") -> int:
    stats = facilities.transport.stats(queue)
    return stats.live.waiting + stats.live.scheduled


def states(facilities: Facilities, ids: list[str]) -> set[str | None]:
    return set(facilities.records.states(ids))


def test_waiting_and_scheduled_jobs_of_an_actor_never_start(start, finish, facilities, work, monkeypatch, run_worker):
    monkeypatch.setattr(runner, "MOST", 7)
    ran: list[int] = []
    work.fn = ran.append
    waiting = [work.send(n).message_id for n in range(20)]
    scheduled = [work.send_with_options(args=(n,), delay=300 if n % 2 else 600_000).message_id for n in range(20)]
    high = [work.send_with_options(args=(n,), priority=0).message_id for n in range(3)]

    act = finish(start("job.cancel", {"actor": "work"}, reason="wrong price"))

    assert (act.state, act.total, act.done, act.skips) == ("done", 43, 43, {})
    assert states(facilities, waiting + scheduled + high) == {"cancelled"}
    entry = AuditEntry.objects.get(act="job.cancel")
    assert (entry.count, entry.outcome, entry.reason) == (43, "done", "wrong price")
    with run_worker("urgent", "urgent-retry"):
        wait_for(lambda: left(facilities) == 0)
    assert ran == []


def test_an_act_that_a_release_before_began_walks_anew(start, finish, facilities, work):
    sent = [work.send(n).message_id for n in range(5)]
    act = start("job.cancel", {"actor": "work"}, reason="wrong price")
    act.cursor = {"queue": 0, "stop": 1, "after": [5_000], "walk": 1, "hit": False}
    act.save(update_fields=["cursor"])

    assert (finish(act).done, states(facilities, sent)) == (5, {"cancelled"})


def test_only_what_matches_is_cancelled(start, finish, facilities, work):
    hit = work.send(number=1, customer="c-7").message_id
    others = [work.send(number=1, customer="c-8").message_id, work.send(2, "c-9").message_id]
    hit_by_place = work.send(3, "c-7").message_id

    assert finish(start("job.cancel", {"queue": "urgent", "argument": "customer=c-7"})).done == 2
    assert states(facilities, [hit, hit_by_place]) == {"cancelled"}
    assert states(facilities, others) == {"queued"}


def test_only_children_of_the_job_that_is_named_are_cancelled(start, finish, facilities, work):
    child = work.send_with_options(args=(1,), parent="p-1").message_id
    others = [work.send_with_options(args=(1,), parent="p-2").message_id, work.send(1).message_id]

    assert (finish(start("job.cancel", {"parent": "p-1"})).done, states(facilities, [child])) == (1, {"cancelled"})
    assert states(facilities, others) == {"queued"}


def test_jobs_of_other_owners_states_and_later_ones_stay(start, finish, facilities, work):
    owned = work.send_with_options(args=(1,), owner="token-1").message_id
    delayed = work.send_with_options(args=(2,), owner="token-1", delay=600_000).message_id
    act = start("job.cancel", {"owner": "token-1", "state": "queued"})
    wait_for(lambda: timezone.now() > act.created_at + timedelta(milliseconds=5))
    later = work.send_with_options(args=(3,), owner="token-1", delay=None).message_id

    act = finish(act)

    assert (act.done, states(facilities, [owned])) == (1, {"cancelled"})
    assert states(facilities, [delayed]) == {"scheduled"}
    assert states(facilities, [later]) == {"queued"}


@pytest.mark.django_db(transaction=True)
def test_running_job_is_asked_to_stop(start, finish, facilities, work, run_worker):
    began = threading.Event()

    def wait(number: int = 0, customer: str = "") -> None:
        began.set()
        threading.Event().wait(0.05)
        while True:
            threading.Event().wait(0.01)

    work.fn = wait
    job_id = work.send(1).message_id
    with run_worker("urgent", "urgent-retry"):
        assert began.wait(30)

        act = finish(start("job.cancel", {"actor": "work", "state": "running"}))

        assert (act.total, act.done) == (1, 1)
        wait_for(lambda: states(facilities, [job_id]) == {"cancelled"})


@pytest.mark.parametrize("killed", ["before the calls", "in the middle of the calls", "after the calls"])
def test_step_repeated_after_a_kill_counts_each_job_once(killed, start, finish, facilities, work):
    ids = [work.send_with_options(args=(n,), delay=600_000 if n % 2 else None).message_id for n in range(12)]
    act = start("job.cancel", {"actor": "work"})
    while (begun := runner.begin(act.pk, act.run)) is not None and not begun[0].hand:
        runner.finish(begun[0], [])
    assert begun is not None
    if killed == "in the middle of the calls":
        kind_of(act.kind).apply(begun[0], begun[0].hand[:3], repeated=False)
    elif killed == "after the calls":
        kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=False)

    act = finish(act)

    assert (act.done, act.skips) == (12, {})
    assert states(facilities, ids) == {"cancelled"}


def test_a_kill_between_the_cancellation_and_its_record_loses_no_job(start, finish, facilities, work, monkeypatch):
    waiting, scheduled = work.send(1).message_id, work.send_with_options(args=(2,), delay=600_000).message_id
    act = start("job.cancel", {"actor": "work"})
    taken = 0
    while taken < 2:  # waiting and scheduled ones are taken apart
        begun = runner.begin(act.pk, act.run)
        with monkeypatch.context() as killed:
            killed.setattr(facilities.records, "write_cancelled", lambda ended: None)
            kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=False)
        runner.finish(begun[0], kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=True))
        taken += len(begun[0].hand)

    act = finish(act)

    assert (act.done, act.skips) == (2, {})
    history = facilities.records.calls.command("XRANGE", facilities.records.keys.queue("urgent").history, "-", "+")
    rows = [row for _, fields in history for row in decode_rows(fields[fields.index(b"rows") + 1])]
    assert sorted((row.id, row.state) for row in rows) == sorted((id_, "cancelled") for id_ in (waiting, scheduled))
    record = facilities.records.read(waiting)
    assert record is not None and record.state == "cancelled" and record.finished_at is not None


@pytest.mark.parametrize(
    ("filter", "fault"),
    [({"fingerprint": "f00d"}, "ended jobs only"), ({"state": "succeeded"}, "have ended"), ({"queue": "x"}, "a queue"),
     ({"colour": "red"}, "is not a filter")],
)  # fmt: skip
def test_filter_that_no_waiting_job_can_match_is_refused(filter, fault, start):
    with pytest.raises(ValueError, match=fault):
        start("job.cancel", filter)


def test_an_act_needs_no_slot_of_the_queue_that_it_rescues(start, facilities, fail_always):
    administration.pause(dramatiq.get_broker().lane("default")[0], reason="fan-out")  # type: ignore[attr-defined]
    ids = [fail_always.send(number).message_id for number in range(200)]
    act = start("job.cancel", {"actor": "fail_always"}, reason="wrong price")

    runner.BulkRunner().go_on()

    act.refresh_from_db()
    assert (act.state, act.done, set(facilities.records.states(ids))) == ("done", 200, {"cancelled"})


@pytest.fixture
def repeated(facilities):
    """An actor of the real yard."""

    @dramatiq.actor(actor_name="repeated", queue_name="urgent")
    def repeated(number: int) -> None:
        pass

    return repeated


def ended(number: int, **changes: Any) -> JobRow:
    """Write a job of the history."""
    at = now_ms() - 10_000 + number
    given = {"job_id": f"job-{number}", "state": "dead", "finished_at": at, "arguments": f'{{"number":{number}}}'}
    return job_row(**{"actor": "repeated", "queue": "urgent", "lane": "urgent"} | given | changes)


def sent(facilities: Facilities) -> list[int]:
    """Return the numbers of the jobs that wait."""
    calls, keys = facilities.records.calls, facilities.records.keys.queue("urgent")
    ids = [str(id_, "ascii") for id_ in calls.command("LRANGE", keys.waiting("live")[1], 0, -1)]
    messages = [facilities.transport.find_message("urgent", id_) for id_ in ids]
    return sorted(message.kwargs["number"] for message in messages if message is not None)


@pytest.mark.parametrize("killed", ["", "killed", "killed, and the broker has forgotten"])
def test_ended_jobs_run_again_once_each(killed, start, finish, facilities, repeated, monkeypatch):
    monkeypatch.setattr(runner, "MOST", 4)
    for number in range(10):
        ended(number)
    ended(10, state="succeeded")
    ended(11, arguments='{"number":"[redacted]"}')
    act = start("job.run_again", {"actor": "repeated", "state": "dead"}, reason="rates are back")
    if killed:
        begun = runner.begin(act.pk, act.run)
        kind_of(act.kind).apply(begun[0], begun[0].hand[:3], repeated=False)
    forgotten = sent(facilities) if killed.endswith("forgotten") else []
    if forgotten:
        calls, keys = facilities.records.calls, facilities.records.keys.queue("urgent")
        for id_ in calls.command("LRANGE", keys.waiting("live")[1], 0, -1):
            ended(0, job_id=str(id_, "ascii"), state="succeeded")
        calls.command("DEL", keys.bodies, keys.waiting("live")[1])

    act = finish(act)

    assert (act.state, act.done, act.skipped) == ("done", 10, 1)
    assert sent(facilities) == [number for number in range(10) if number not in forgotten]
    assert AuditEntry.objects.get(act="job.run_again").count == 10


def test_jobs_that_no_release_would_take_are_left_out(start, finish, facilities, repeated):
    ended(1)
    ended(2, arguments='{"number":[2]}')
    ended(3, arguments='{"numbers":3}')
    ended(4, tags=[""])
    ended(5)

    act = finish(start("job.run_again", {"actor": "repeated", "state": "dead"}))

    assert (act.state, act.done, act.error) == ("done", 2, "")
    assert act.skips == {"its arguments or tags do not fit this release": 3}
    assert sent(facilities) == [1, 5]


@pytest.mark.parametrize("filter", [{}, {"state": "running"}, {"colour": "red"}])
def test_second_run_of_everything_or_of_what_has_not_ended_is_refused(filter, start):
    with pytest.raises(ValueError, match=r"state|colour"):
        start("job.run_again", filter)
