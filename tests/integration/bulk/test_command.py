"""``manage.py switchyard bulk`` on real rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from switchyard.bulk.models import BulkAct
from switchyard.schedules.runner import maintenance_tasks
from tests.integration.bulk.conftest import Start
from tests.integration.bulk.test_letters import bury

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fail_always")]


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
