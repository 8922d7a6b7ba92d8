"""Bulk requeue and discard of dead letters on the real broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.bulk import runner, services
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from switchyard.dead_letters import acts
from switchyard.dead_letters.acts import reconcile_all
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.schedules.runner import maintenance_tasks
from tests.factories.letters import discard, keep, letter
from tests.integration.bulk.conftest import WHO, Start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fail_always")]
Finish = Callable[[BulkAct], BulkAct]


def bury(count: int, **changes: Any) -> list[Letter]:
    """Put letters into their dead lists, with their rows."""
    first = now_ms() - count - 1_000
    letters = [keep(letter(died_at=first + n, **changes)) for n in range(count)]
    for one in letters:
        project(one)
    return letters


def waiting_ids(facilities: Facilities, queue: str = "default") -> list[str]:
    calls, keys = facilities.records.calls, facilities.records.keys.queue(queue)
    return [str(id_, "ascii") for id_ in calls.command("LRANGE", keys.waiting("live")[1], 0, -1)]


def dead_ids(facilities: Facilities, queue: str = "default") -> list[str]:
    calls, keys = facilities.records.calls, facilities.records.keys.queue(queue)
    return [str(id_, "ascii") for id_ in calls.command("LRANGE", keys.dead, 0, -1)]


@pytest.mark.sqlite
@pytest.mark.parametrize("filter", [{}, {"state": "new"}])
def test_a_cause_is_counted_along_its_index_not_by_the_time_of_all_letters(filter: dict[str, str]) -> None:
    bury(2)
    planned = BulkAct(
        kind="letter.requeue", filter={"fingerprint": "f00dfacef00dface", **filter}, created_at=timezone.now()
    )
    kind = kind_of(planned.kind)

    with CaptureQueriesContext(connection) as counted:
        assert kind.count(planned) == 2
        assert kind.facts(planned)

    assert len(counted) == 4
    for query in counted:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = " ".join(str(step[3]) for step in cursor.fetchall())
        assert "dead_letter_groups (is_open=? AND fingerprint=?" in plan, plan


def test_requeues_each_letter_of_a_group_once_oldest_first(
    start: Start, finish: Finish, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST", 20)
    of_group = [one.id for one in bury(50)]
    other = [one.id for one in bury(3, fingerprint="other")]

    act = finish(start("letter.requeue", {"fingerprint": "f00dfacef00dface"}, reason="mended"))

    assert (act.state, act.total, act.done, act.skipped) == ("done", 50, 50, 0)
    assert waiting_ids(facilities) == of_group
    assert dead_ids(facilities) == other
    rows = DeadLetter.objects.filter(message_id__in=of_group)
    assert {(row.state, row.state_by, row.claim_token) for row in rows} == {("requeued", "a.lind", "")}
    assert all(
        [(it["act"], it["by"], it["note"]) for it in row.history] == [("requeue", "a.lind", "mended")] for row in rows
    )
    entry = AuditEntry.objects.get(act="letter.requeue")
    assert (entry.outcome, entry.count, entry.who, entry.reason) == ("done", 50, "a.lind", "mended")
    assert AuditEntry.objects.get(act="bulk.start").outcome == "done"


@pytest.mark.parametrize("kind", ["letter.requeue", "letter.discard"])
@pytest.mark.parametrize("killed", ["before the broker moved", "after the moves", "in the middle of the moves"])
def test_step_repeated_after_a_kill_moves_each_letter_once(
    kind: str, killed: str, start: Start, finish: Finish, facilities: Facilities
) -> None:
    letters = bury(10)
    act = start(kind, {"fingerprint": "f00dfacef00dface"})
    begun = runner.begin(act.pk, act.run)
    assert begun is not None
    if killed == "after the moves":
        kind_of(kind).apply(begun[0], begun[0].hand, repeated=False)
    elif killed == "in the middle of the moves":
        kind_of(kind).apply(begun[0], begun[0].hand[:4], repeated=False)

    reconcile_all()
    runner.claim(act.pk)
    act = finish(act)

    assert (act.state, act.done, act.skipped) == ("done", 10, 0)
    requeued = Counter(waiting_ids(facilities))
    expected = 1 if kind == "letter.requeue" else 0
    assert {requeued[one.id] for one in letters} == {expected}
    assert dead_ids(facilities) == []
    assert not DeadLetter.objects.exclude(claim_token="").exists()
    assert AuditEntry.objects.get(act=kind).count == 10


def test_letter_that_died_again_before_the_repeated_step_stays_dead_and_counts_once(
    start: Start, finish: Finish, facilities: Facilities
) -> None:
    made = bury(1)[0]
    act = start("letter.requeue", {"fingerprint": "f00dfacef00dface"})
    begun = runner.begin(act.pk, act.run)
    assert begun is not None
    kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=False)
    facilities.records.calls.command("HDEL", facilities.records.keys.queue("default").bodies, made.id)
    project(keep(letter(id=made.id, died_at=now_ms() + 5)))

    act = finish(act)

    assert (act.done, act.skipped) == (1, 0)
    row = DeadLetter.objects.get()
    assert (row.state, row.deaths, row.claim_token) == ("new", 2, "")
    assert dead_ids(facilities) == [made.id]


def test_letter_that_a_person_has_claimed_is_left_to_that_person(start: Start, finish: Finish) -> None:
    first, _ = bury(2)
    DeadLetter.objects.filter(message_id=first.id).update(claim_token="x", claim_by="b.berg", claim_act="discard")

    act = finish(start("letter.requeue", {}))

    assert (act.done, act.skips) == (1, {"another act has claimed it": 1})


def test_letter_in_hand_of_a_bulk_act_is_refused_to_a_person(start: Start) -> None:
    made = bury(1)[0]
    act = start("letter.requeue", {})
    runner.begin(act.pk, act.run)
    DeadLetter.objects.update(claim_at="2026-01-01T00:00:00Z")

    result = acts.act_on(made.id, "discard", by="b.berg")

    assert "a.lind has begun to requeue" in result


def test_act_whose_step_fails_ends_and_releases_its_letters(
    start: Start, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(2)
    act = start("letter.requeue", {}, reason="mended")

    def fail(*args: Any, **options: Any) -> None:
        raise ValueError("no such field")

    monkeypatch.setattr(type(facilities.transport), "requeue", fail)
    BulkRunner().go_on()

    act.refresh_from_db()
    assert (act.state, act.error, act.skips) == ("failed", "ValueError: no such field", {"their step failed": 2})
    assert {(row.state, row.claim_token) for row in DeadLetter.objects.all()} == {("new", "")}
    assert AuditEntry.objects.get(act="letter.requeue").outcome == "failed"


def test_letter_that_the_broker_lost_is_skipped_and_marked(
    start: Start, finish: Finish, facilities: Facilities
) -> None:
    made = bury(2)[0]
    discard(facilities.transport, "default", made.id)

    act = finish(start("letter.requeue", {}))

    assert (act.done, act.skips) == (1, {"no longer in the broker's dead list": 1})
    assert DeadLetter.objects.get(message_id=made.id).state == "missing"


def test_letters_of_several_queues_and_scattered_ones_leave_the_others_in_their_order(
    start: Start, finish: Finish, facilities: Facilities
) -> None:
    letters = []
    for n in range(60):
        fingerprint = "wanted" if n % 7 == 0 else "other"
        letters += bury(1, fingerprint=fingerprint, queue="urgent" if n % 5 == 0 else "default")
    kept = [one for one in letters if one.fingerprint == "other"]

    act = finish(start("letter.requeue", {"fingerprint": "wanted"}))

    assert act.done == 60 - len(kept)
    for queue in ("default", "urgent"):
        assert dead_ids(facilities, queue) == [one.id for one in kept if one.queue == queue]


def test_stop_ends_the_act_after_its_step_and_what_is_done_stays(
    start: Start, finish: Finish, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST", 5)
    bury(12)
    act = start("letter.requeue", {})
    runner.take_step(act.pk, act.run)

    assert services.stop(act.pk, who=WHO)
    assert not services.stop(act.pk, who=WHO)

    act = finish(act)
    assert (act.state, act.done) == ("stopped", 5)
    assert len(dead_ids(facilities)) == 7
    assert AuditEntry.objects.get(act="letter.requeue").count == 5


def test_letters_that_die_after_the_start_are_not_touched(start: Start, finish: Finish, facilities: Facilities) -> None:
    bury(2)
    act = start("letter.requeue", {})
    late = keep(letter(died_at=now_ms() + 60_000))
    project(late)

    assert finish(act).done == 2
    assert dead_ids(facilities) == [late.id]


def test_the_schedulers_task_does_every_act_and_one_that_cannot_go_on_waits_and_holds_up_no_other(
    start: Start, finish: Finish, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(2, fingerprint="away")
    bury(30, fingerprint="mended")
    away, slowly = start("letter.requeue", {"fingerprint": "away"}), start("letter.discard", {}, rate=1_000)
    [task] = [task for task in maintenance_tasks() if task.name == "bulk acts"]

    def fail(*args: Any, **options: Any) -> None:
        raise BrokerUnavailable("requeue", "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(type(facilities.transport), "requeue", fail)
        with pytest.raises(BrokerUnavailable):
            task.run()
        task.run()

    assert {act.pk: act.state for act in BulkAct.objects.all()} == {away.pk: "running", slowly.pk: "done"}
    assert finish(away).done == 2


def test_a_scheduler_that_takes_over_ends_the_run_of_the_one_before(start: Start, facilities: Facilities) -> None:
    bury(1)
    act = start("letter.requeue", {})
    first, second = runner.claim(act.pk), runner.claim(act.pk)

    assert runner.take_step(act.pk, first) is None
    assert runner.take_step(act.pk, second) is not None


@pytest.fixture
def limit(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the queue ``default`` hold 120 messages."""
    monkeypatch.setattr(dramatiq.get_broker(), "limits", DepthLimits({"default": 120}))
    return 120


def make_room(facilities: Facilities) -> None:
    administration.flush(dramatiq.get_broker().lane("default")[0])  # type: ignore[attr-defined]


def test_a_requeue_waits_while_its_queue_is_full(
    start: Start, finish: Finish, facilities: Facilities, limit: int
) -> None:
    bury(200)
    act = start("letter.requeue", {})

    BulkRunner().go_on()

    assert len(waiting_ids(facilities)) == limit and len(dead_ids(facilities)) == 80
    act.refresh_from_db()
    assert (act.state, act.done, act.run) == ("running", 0, 1)
    assert act.error == "queue default is full; the act goes on once there is room"
    make_room(facilities)
    act = finish(act)
    assert (act.state, act.done, act.skipped, act.error) == ("done", 200, 0, "")
    assert len(waiting_ids(facilities)) == 80 and dead_ids(facilities) == []


def test_a_requeue_that_waits_for_room_can_be_stopped(
    start: Start, finish: Finish, facilities: Facilities, limit: int
) -> None:
    bury(150)
    act = start("letter.requeue", {})
    BulkRunner().go_on()

    services.stop(act.pk, who=WHO)
    act.refresh_from_db()
    act = finish(act)

    assert (act.state, act.done, act.skips) == ("stopped", 120, {acts.REASONS["full"]: 30})
    assert len(dead_ids(facilities)) == 30
    assert DeadLetter.objects.filter(state="new", claim_token="").count() == 30


def test_a_letter_is_not_requeued_into_a_full_queue(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dramatiq.get_broker(), "limits", DepthLimits({"default": 1}))
    first, second = bury(2)
    assert acts.act_on(first.id, "requeue", by="b.berg") == ""

    result = acts.act_on(second.id, "requeue", by="b.berg")

    assert "raise max_depth" in result
    assert dead_ids(facilities) == [second.id]
    make_room(facilities)
    assert acts.act_on(second.id, "requeue", by="b.berg") == ""
