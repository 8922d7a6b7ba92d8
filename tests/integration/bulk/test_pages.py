"""Pages of bulk acts: ask, start, watch, stop; rights; nothing changes on GET."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.bulk import views
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.models import DeadLetter
from switchyard.schedules.runner import maintenance_tasks
from tests.factories.pages import text_of
from tests.factories.staff import client_of
from tests.integration.bulk.conftest import Start
from tests.integration.bulk.test_letters import bury

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fail_always")]
Finish = Callable[[BulkAct], BulkAct]
BEGIN = "/admin/operations/bulk/begin/letter.requeue/?fingerprint=f00dfacef00dface"


@pytest.fixture
def operator(facilities: Facilities) -> User:
    """A staff user with the rights on letters and bulk acts."""
    user = User.objects.create_user("a.lind", is_staff=True)
    labels = ("switchyard_dead_letters", "switchyard_bulk")
    user.user_permissions.set(Permission.objects.filter(content_type__app_label__in=labels))
    return user


@pytest.fixture
def page(operator: User) -> Client:
    return client_of(operator)


def many_letters(count: int) -> None:
    """Give the group that many rows; one of them is in the broker."""
    bury(1)
    first = DeadLetter.objects.get()
    names = [f.attname for f in DeadLetter._meta.concrete_fields if f.name not in ("id", "is_open", "message_id")]
    values = {name: getattr(first, name) for name in names}
    DeadLetter.objects.bulk_create(DeadLetter(**values, message_id=f"copy-{n}") for n in range(count - 1))


def test_page_asks_who_is_hit_and_starts_nothing(page: Client) -> None:
    bury(3)

    text = text_of(page.get(BEGIN))

    assert "Requeue 3 dead letters?" in text
    assert "KeyError in fail_always (3)" in text
    assert "fingerprint = f00dfacef00dface" in text
    assert not BulkAct.objects.exists()


def test_act_starts_and_its_page_shows_it_until_its_end(page: Client, finish: Finish) -> None:
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
    assert "Everything that matched at its start was reached: 3 done" in text
    assert "Stop and leave" not in text


@pytest.mark.parametrize(
    ("given", "said"),
    [({"count": "101"}, "type 101 into the field"), ({"count": "101", "typed": "100"}, "type 101 into the field"),
     ({"count": "101", "typed": "101", "rate": "0"}, "from 1 to 1000000"),
     ({"count": "1", "typed": "1"}, "")],
)  # fmt: skip
def test_more_than_100_need_their_count_typed(page: Client, given: dict[str, str], said: str) -> None:
    many_letters(101)

    answer = page.post(BEGIN, given)

    assert (answer.status_code == 302) is (said == "")
    assert said in text_of(answer)
    assert BulkAct.objects.exists() is (said == "")


def test_destructive_act_needs_a_reason(page: Client) -> None:
    bury(1)
    begin = BEGIN.replace("requeue", "discard")

    refused = page.post(begin, {"count": "1", "reason": " "})

    assert (refused.status_code, BulkAct.objects.count()) == (400, 0)
    assert "enter a reason" in text_of(refused)


def test_unknown_things_are_not_found(page: Client) -> None:
    assert page.get("/admin/operations/bulk/99/").status_code == 404
    assert page.get("/admin/operations/bulk/begin/letter.requeue/?colour=red").status_code == 400


def test_page_hides_the_argument_of_a_filter_from_who_may_not_view_arguments(
    start: Start, operator: User, page: Client
) -> None:
    act = start("job.cancel", {"argument": "month=argument-7731", "queue": "billing"})
    address = f"/admin/operations/bulk/{act.pk}/"

    poor = page.get(address).content.decode()
    operator.user_permissions.add(Permission.objects.get(codename="view_arguments"))
    full = page.get(address).content.decode()

    assert "argument-7731" not in poor and "billing" in poor
    assert "argument-7731" in full


@pytest.mark.parametrize("at_once", [False, True])
def test_form_that_is_sent_twice_starts_one_act(page: Client, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(3)
    form = re.search(r'name="form_id" value="([0-9a-f-]{36})"', page.get(BEGIN).content.decode())
    assert form is not None
    given = {"count": "3", "reason": "mended", "form_id": form[1]}
    first = page.post(BEGIN, given)
    if at_once:  # the second request looks before the first one has written its act
        answers = [views._started(form[1]), None]
        monkeypatch.setattr(views, "_started", lambda form_id: answers.pop())

    second = page.post(BEGIN, given)

    assert second["Location"] == first["Location"] == f"/admin/operations/bulk/{BulkAct.objects.get().pk}/"
    assert AuditEntry.objects.filter(act="letter.requeue").count() == 1


def test_an_act_that_waited_for_the_scheduler_took_that_long(page: Client, start: Start, finish: Finish) -> None:
    bury(1)
    done = finish(start("letter.requeue", {"fingerprint": "f00dfacef00dface"}))
    BulkAct.objects.filter(pk=done.pk).update(created_at=done.created_at - timedelta(seconds=65))

    assert re.search(r"all in 1 min 0\d s", text_of(page.get("/admin/operations/bulk/")))


def test_lists_shows_and_stops(
    start: Start, finish: Callable[[BulkAct], BulkAct], capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_ended_acts_are_deleted_after_90_days(start: Start, finish: Callable[[BulkAct], BulkAct]) -> None:
    [task] = [task for task in maintenance_tasks() if task.name == "old bulk acts"]
    acts = {days: finish(start("letter.discard", {})) for days in (0, 89, 91, 400)}
    unfinished = start("letter.discard", {})
    for days, act in [*acts.items(), (500, unfinished)]:
        BulkAct.objects.filter(pk=act.pk).update(touched_at=timezone.now() - timedelta(days=days))

    assert task.run() == 2

    assert set(BulkAct.objects.values_list("pk", flat=True)) == {acts[0].pk, acts[89].pk, unfinished.pk}
