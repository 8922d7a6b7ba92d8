"""Bulk acts on letters: each is moved once whatever is killed; their pages ask, start, watch and stop."""

import json
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
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
from switchyard.bulk import runner, services, views
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from switchyard.dead_letters import acts
from switchyard.dead_letters.acts import reconcile_all
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.schedules.runner import maintenance_tasks
from tests.factories.letters import discard, keep, letter
from tests.factories.pages import text_of
from tests.factories.staff import client_of
from tests.integration.bulk.conftest import WHO

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fail_always")]


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
def test_a_cause_is_counted_along_its_index_not_by_the_time_of_all_letters(filter):
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


def test_requeues_each_letter_of_a_group_once_oldest_first(start, finish, facilities, monkeypatch):
    monkeypatch.setattr(runner, "MOST", 20)
    of_group = [one.id for one in bury(50)]
    other = [one.id for one in bury(3, fingerprint="other")]

    act = finish(start("letter.requeue", {"fingerprint": "f00dfacef00dface"}, reason="mended"))

    assert (act.state, act.total, act.done, act.skipped) == ("done", 50, 50, 0)
    assert (waiting_ids(facilities), dead_ids(facilities)) == (of_group, other)
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
def test_step_repeated_after_a_kill_moves_each_letter_once(kind, killed, start, finish, facilities):
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


def test_letter_that_died_again_before_the_repeated_step_stays_dead_and_counts_once(start, finish, facilities):
    made = bury(1)[0]
    act = start("letter.requeue", {"fingerprint": "f00dfacef00dface"})
    begun = runner.begin(act.pk, act.run)
    kind_of(act.kind).apply(begun[0], begun[0].hand, repeated=False)
    facilities.records.calls.command("HDEL", facilities.records.keys.queue("default").bodies, made.id)
    project(keep(letter(id=made.id, died_at=now_ms() + 5)))

    act = finish(act)

    assert (act.done, act.skipped) == (1, 0)
    row = DeadLetter.objects.get()
    assert (row.state, row.deaths, row.claim_token) == ("new", 2, "")
    assert dead_ids(facilities) == [made.id]


def test_letter_that_a_person_has_claimed_is_left_to_that_person(start, finish):
    first, _ = bury(2)
    DeadLetter.objects.filter(message_id=first.id).update(claim_token="x", claim_by="b.berg", claim_act="discard")

    act = finish(start("letter.requeue", {}))

    assert (act.done, act.skips) == (1, {"another act has claimed it": 1})


def test_letter_in_hand_of_a_bulk_act_is_refused_to_a_person(start):
    made = bury(1)[0]
    act = start("letter.requeue", {})
    runner.begin(act.pk, act.run)
    DeadLetter.objects.update(claim_at="2026-01-01T00:00:00Z")

    assert "a.lind has begun to requeue" in acts.act_on(made.id, "discard", by="b.berg")


def test_act_whose_step_fails_ends_and_releases_its_letters(start, facilities, monkeypatch):
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


def test_letter_that_the_broker_lost_is_skipped_and_marked(start, finish, facilities):
    made = bury(2)[0]
    discard(facilities.transport, "default", made.id)

    act = finish(start("letter.requeue", {}))

    assert (act.done, act.skips) == (1, {"no longer in the broker's dead list": 1})
    assert DeadLetter.objects.get(message_id=made.id).state == "missing"


def test_letters_of_several_queues_and_scattered_ones_leave_the_others_in_their_order(start, finish, facilities):
    letters = []
    for n in range(60):
        fingerprint = "wanted" if n % 7 == 0 else "other"
        letters += bury(1, fingerprint=fingerprint, queue="urgent" if n % 5 == 0 else "default")
    kept = [one for one in letters if one.fingerprint == "other"]

    assert finish(start("letter.requeue", {"fingerprint": "wanted"})).done == 60 - len(kept)
    for queue in ("default", "urgent"):
        assert dead_ids(facilities, queue) == [one.id for one in kept if one.queue == queue]


def test_stop_ends_the_act_after_its_step_and_what_is_done_stays(start, finish, facilities, monkeypatch):
    monkeypatch.setattr(runner, "MOST", 5)
    bury(12)
    act = start("letter.requeue", {})
    runner.take_step(act.pk, act.run)

    assert services.stop(act.pk, who=WHO)
    assert not services.stop(act.pk, who=WHO)

    act = finish(act)
    assert (act.state, act.done, len(dead_ids(facilities))) == ("stopped", 5, 7)
    assert AuditEntry.objects.get(act="letter.requeue").count == 5


def test_letters_that_die_after_the_start_are_not_touched(start, finish, facilities):
    bury(2)
    act = start("letter.requeue", {})
    late = keep(letter(died_at=now_ms() + 60_000))
    project(late)

    assert finish(act).done == 2
    assert dead_ids(facilities) == [late.id]


def test_the_schedulers_task_does_every_act_and_one_that_cannot_go_on_waits_and_holds_up_no_other(
    start, finish, facilities, monkeypatch
):
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


def test_a_scheduler_that_takes_over_ends_the_run_of_the_one_before(start, facilities):
    bury(1)
    act = start("letter.requeue", {})
    first, second = runner.claim(act.pk), runner.claim(act.pk)

    assert runner.take_step(act.pk, first) is None
    assert runner.take_step(act.pk, second) is not None


@pytest.fixture
def limit(facilities, monkeypatch):
    """Let the queue ``default`` hold 120 messages."""
    monkeypatch.setattr(dramatiq.get_broker(), "limits", DepthLimits({"default": 120}))
    return 120


def make_room(facilities: Facilities) -> None:
    administration.flush(dramatiq.get_broker().lane("default")[0])  # type: ignore[attr-defined]


def test_a_requeue_waits_while_its_queue_is_full(start, finish, facilities, limit):
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


def test_a_requeue_that_waits_for_room_can_be_stopped(start, finish, facilities, limit):
    bury(150)
    act = start("letter.requeue", {})
    BulkRunner().go_on()

    services.stop(act.pk, who=WHO)
    act.refresh_from_db()
    act = finish(act)

    assert (act.state, act.done, act.skips) == ("stopped", 120, {acts.REASONS["full"]: 30})
    assert len(dead_ids(facilities)) == 30
    assert DeadLetter.objects.filter(state="new", claim_token="").count() == 30


def test_a_letter_is_not_requeued_into_a_full_queue(facilities, monkeypatch):
    monkeypatch.setattr(dramatiq.get_broker(), "limits", DepthLimits({"default": 1}))
    first, second = bury(2)
    assert acts.act_on(first.id, "requeue", by="b.berg") == ""

    assert "raise max_depth" in acts.act_on(second.id, "requeue", by="b.berg")
    assert dead_ids(facilities) == [second.id]
    make_room(facilities)
    assert acts.act_on(second.id, "requeue", by="b.berg") == ""


BEGIN = "/admin/operations/bulk/begin/letter.requeue/?fingerprint=f00dfacef00dface"


@pytest.fixture
def operator(facilities):
    """A staff user with the rights on letters and bulk acts."""
    user = User.objects.create_user("a.lind", is_staff=True)
    labels = ("switchyard_dead_letters", "switchyard_bulk")
    user.user_permissions.set(Permission.objects.filter(content_type__app_label__in=labels))
    return user


@pytest.fixture
def page(operator):
    return client_of(operator)


def many_letters(count: int) -> None:
    """Give the group that many rows; one of them is in the broker."""
    bury(1)
    first = DeadLetter.objects.get()
    names = [f.attname for f in DeadLetter._meta.concrete_fields if f.name not in ("id", "is_open", "message_id")]
    values = {name: getattr(first, name) for name in names}
    DeadLetter.objects.bulk_create(DeadLetter(**values, message_id=f"copy-{n}") for n in range(count - 1))


def test_page_asks_who_is_hit_and_starts_nothing(page):
    bury(3)

    text = text_of(page.get(BEGIN))

    assert "Requeue 3 dead letters?" in text and "KeyError in fail_always (3)" in text
    assert "fingerprint = f00dfacef00dface" in text
    assert not BulkAct.objects.exists()


def test_act_starts_and_its_page_shows_it_until_its_end(page, finish):
    bury(3)

    answer = page.post(BEGIN, {"count": "3", "reason": "mended", "rate": ""})

    act = BulkAct.objects.get()
    assert answer["Location"] == f"/admin/operations/bulk/{act.pk}/"
    assert (act.kind, act.filter, act.reason, act.who) == (
        "letter.requeue", {"fingerprint": "f00dfacef00dface"}, "mended", "a.lind",
    )  # fmt: skip
    assert "It waits for the scheduler" in text_of(page.get(answer["Location"]))
    finish(act)
    text = text_of(page.get(answer["Location"]))
    assert "Everything that matched at its start was reached: 3 done" in text and "Stop and leave" not in text


@pytest.mark.parametrize(
    ("given", "said"),
    [({"count": "101"}, "type 101 into the field"), ({"count": "101", "typed": "100"}, "type 101 into the field"),
     ({"count": "101", "typed": "101", "rate": "0"}, "from 1 to 1000000"),
     ({"count": "1", "typed": "1"}, "")],
)  # fmt: skip
def test_more_than_100_need_their_count_typed(page, given, said):
    many_letters(101)

    answer = page.post(BEGIN, given)

    assert (answer.status_code == 302) is (said == "")
    assert said in text_of(answer)
    assert BulkAct.objects.exists() is (said == "")


def test_destructive_act_needs_a_reason(page):
    bury(1)
    refused = page.post(BEGIN.replace("requeue", "discard"), {"count": "1", "reason": " "})

    assert (refused.status_code, BulkAct.objects.count()) == (400, 0)
    assert "enter a reason" in text_of(refused)


def test_unknown_things_are_not_found(page):
    assert page.get("/admin/operations/bulk/99/").status_code == 404
    assert page.get("/admin/operations/bulk/begin/letter.requeue/?colour=red").status_code == 400


def test_page_hides_the_argument_of_a_filter_from_who_may_not_view_arguments(start, operator, page):
    act = start("job.cancel", {"argument": "month=argument-7731", "queue": "billing"})
    address = f"/admin/operations/bulk/{act.pk}/"

    poor = page.get(address).content.decode()
    operator.user_permissions.add(Permission.objects.get(codename="view_arguments"))
    full = page.get(address).content.decode()

    assert "argument-7731" not in poor and "billing" in poor
    assert "argument-7731" in full


@pytest.mark.parametrize("at_once", [False, True])
def test_form_that_is_sent_twice_starts_one_act(page, at_once, monkeypatch):
    bury(3)
    form = re.search(r'name="form_id" value="([0-9a-f-]{36})"', page.get(BEGIN).content.decode())
    given = {"count": "3", "reason": "mended", "form_id": form[1]}
    first = page.post(BEGIN, given)
    if at_once:  # the second request looks before the first one has written its act
        answers = [views._started(form[1]), None]
        monkeypatch.setattr(views, "_started", lambda form_id: answers.pop())

    second = page.post(BEGIN, given)

    assert second["Location"] == first["Location"] == f"/admin/operations/bulk/{BulkAct.objects.get().pk}/"
    assert AuditEntry.objects.filter(act="letter.requeue").count() == 1


def test_an_act_that_waited_for_the_scheduler_took_that_long(page, start, finish):
    bury(1)
    done = finish(start("letter.requeue", {"fingerprint": "f00dfacef00dface"}))
    BulkAct.objects.filter(pk=done.pk).update(created_at=done.created_at - timedelta(seconds=65))

    assert re.search(r"all in 1 min 0\d s", text_of(page.get("/admin/operations/bulk/")))


def test_lists_shows_and_stops(start, finish, capsys):
    bury(2)
    done = finish(start("letter.requeue", {"queue": "default"}, reason="mended"))
    bury(1)
    going = start("letter.discard", {})
    capsys.readouterr()

    call_command("switchyard", "bulk", "list")
    assert f"{done.pk}  Requeue 2 dead letters: done, 2 of 2 done" in capsys.readouterr().out
    call_command("switchyard", "bulk", "show", str(done.pk))
    assert "filter         queue=default" in capsys.readouterr().out
    call_command("switchyard", "bulk", "show", str(done.pk), "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["done"], shown["reason"]) == ("done", 2, "mended")
    call_command("switchyard", "bulk", "stop", str(going.pk))
    assert "stops after the step" in capsys.readouterr().out
    finish(going)
    assert BulkAct.objects.get(pk=going.pk).state == "stopped"


def test_ended_acts_are_deleted_after_90_days(start, finish):
    [task] = [task for task in maintenance_tasks() if task.name == "old bulk acts"]
    acts = {days: finish(start("letter.discard", {})) for days in (0, 89, 91, 400)}
    unfinished = start("letter.discard", {})
    for days, act in [*acts.items(), (500, unfinished)]:
        BulkAct.objects.filter(pk=act.pk).update(touched_at=timezone.now() - timedelta(days=days))

    assert task.run() == 2

    assert set(BulkAct.objects.values_list("pk", flat=True)) == {acts[0].pk, acts[89].pk, unfinished.pk}
