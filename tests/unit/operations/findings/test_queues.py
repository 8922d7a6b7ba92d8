from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest

from switchyard.broker.clock import now_ms
from switchyard.broker.shapes import ActorPause, LaneStats, OpenCircuit, QueueStats
from switchyard.operations.findings import examine, queues
from switchyard.operations.findings.facts import QueueFacts, Snapshot
from switchyard.operations.findings.finding import Finding
from switchyard.operations.overview import diagnose
from tests.unit.operations.yards import facts, lane, state

pytestmark = pytest.mark.usefixtures("small_yard")


def circuit(**changes: object) -> OpenCircuit:
    """Return the circuit of crm, open for 40 s, for which three jobs wait."""
    pause = ActorPause(now_ms() - 40_500, now_ms() + 90_500, 1, "circuit crm", calls={"sync": 1}, times=4)
    return OpenCircuit(msgspec.structs.replace(pause, **changes), 3)  # type: ignore[arg-type]


def test_a_circuit_that_a_person_opened_is_told_as_his_act_until_a_probe_fails() -> None:
    opened = queues.circuit_open("mail", "crm", [circuit(by="ada", times=1, reason="they update")])
    failed = queues.circuit_open("mail", "crm", [circuit(by="ada", times=2, reason="they update")])

    assert opened.name == "queues.paused"
    assert re.fullmatch(r"ada opened the circuit of crm in mail \d+ s ago \(they update\); 3 jobs wait", opened.seen)
    assert opened.then.startswith("One job probes it in 1 min")
    assert opened.next == "manage.py switchyard actors resume sync"
    assert failed.seen.startswith("crm is down: its circuit is open")


def test_an_open_circuit_and_the_calls_before_it_are_one_finding_from_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "crm is down: 5 of 5 calls failed"
    calls = Finding("actors", "dependency_down", "warning", said, subject="mail", actor="sync")
    now = state()
    stats = tuple(
        msgspec.structs.replace(each, circuits=(circuit(),)) if each.queue == "mail" else each for each in now.queues
    )

    found = diagnose(facts(replace(now, queues=stats)), [calls], 0).findings
    by_value = queues.circuit_open("mail", "crm", [circuit(argument="host", value="eu")])
    both = [queues.circuit_open(queue, "crm", [circuit()]) for queue in ("mail", "slow")]
    monkeypatch.setattr(examine, "checks", lambda: (examine.Check(queues.GROUP, lambda: [*both, calls], 3.0),))

    assert [each.finding.name for each in found] == ["actors.dependency_down"]
    assert found[0].sentence.startswith("crm is down: its circuit is open in mail since")
    assert by_value.name == "queues.circuit_open"
    assert examine.examine() == both


@pytest.mark.parametrize(("messages", "said"), [(0, []), (2, ["lapsed"])])
def test_a_lease_that_expired_without_messages_is_no_fault(messages: int, said: list[str]) -> None:
    stats = QueueStats("mail", lane("mail"), LaneStats("mail-retry", 0, 0, 0, None), 0, 0)
    held = QueueFacts(stats, {"w": 9.0}, messages, {}, {}, {}, ())

    found = queues.look(Snapshot(now_ms(), {"mail": held}, [], []))

    assert [each.code for each in found] == said
