"""``manage.py switchyard diagnose`` on a yard whose pools are down, and on one with an actor that is slower."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import call_command

from switchyard.broker.interface import Facilities
from switchyard.commands import diagnose as command
from switchyard.operations import overview
from switchyard.operations.findings.actors import GROUP
from switchyard.operations.findings.finding import Button, ranked
from switchyard.operations.findings.lateness import GROUP as LATE_QUEUES
from switchyard.operations.overview import Verdict

pytestmark = pytest.mark.django_db(transaction=True)


def test_pools_that_are_down_come_first(facilities: Facilities, capsys: Any) -> None:
    overview.FACTS.forget()
    with pytest.raises(SystemExit) as ended:
        call_command("switchyard", "diagnose", "--json")

    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == told["exit_code"]
    assert told["exit_code"] in (1, 2)
    assert told["diagnosis"]["cause"] == "nothing_dispatches"
    assert told["diagnosis"]["confidence"] == 0.95
    assert told["diagnosis"]["next"].startswith("manage.py switchyard runpool")
    assert set(told["diagnosis"]) == {
        "cause", "title", "sentence", "evidence", "confidence", "next", "link", "queue", "actor",
    }  # fmt: skip


@pytest.mark.parametrize("said", ["slower", ""])
def test_the_text_has_the_cause_its_step_and_the_others(
    facilities: Facilities, capsys: Any, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    button = Button("Show mail", "switchyard-actor", "mail")
    findings = [
        GROUP.finding("warning", "silent", "nothing sends news", "", "look", "slow"),
        GROUP.finding("warning", "slower", "mail takes 25 s", "", "manage.py x", "default", button=button),
    ]
    verdict = Verdict("warn", "Slower", "Every queue is on time.", findings=tuple(ranked(findings if said else [])))
    room = overview.overview()
    monkeypatch.setattr(command, "read_room", lambda: replace(room, verdict=verdict))

    if said:
        with pytest.raises(SystemExit):
            call_command("switchyard", "diagnose")
    else:
        call_command("switchyard", "diagnose")

    told = capsys.readouterr().out.splitlines()
    if not said:
        assert told == ["No cause of late or failing jobs. Every queue is on time."]
        return
    assert told[:2] == ["Slower than its own past (80 % sure)", "  mail takes 25 s."]
    assert "  next      manage.py x" in told
    assert "  page      /admin/operations/actors/mail/" in told
    assert told[-1] == "Then: a producer is silent: Nothing sends news."


def test_a_late_queue_is_judged_by_the_reading_that_its_finding_is_of(facilities: Facilities) -> None:
    late = LATE_QUEUES.finding("error", "late", "its free slots start nothing", "", "", "default")
    room = overview.overview()
    found = next(row for row, _ in room.rows if row.name == "default")
    rows = ((replace(found, busy=2, slots=8, state=replace(found.state, word="Late")), room.rows[0][1]),)
    verdict = Verdict("bad", "Late", late.seen, findings=tuple(ranked([late])))
    told = command.causes_of(replace(room, rows=rows, verdict=verdict))
    assert [each.cause for each in told] == ["nothing_dispatches"]
