"""Instructions of operators: obeyed once, by the process that is meant, and not undone by a quiet period."""

from __future__ import annotations

import math
import time

import pytest

from switchyard.broker.stores.pool_reports import Instruction
from switchyard.broker.topology import Pool
from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.quiet_periods import QuietPeriods
from switchyard.workers.supervisor.report import Instructions
from tests.unit.workers.supervisor.fakes import Server, make_children

POOL = Pool("work", queues=("work",), kind="threads", processes=2, slots=4)
STARTED = 1_000


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> ChildManager:
    pids = iter(range(100, 200))
    monkeypatch.setattr("switchyard.workers.supervisor.children.start_child", lambda *_, **__: next(pids))
    server = Server()
    server.waiting, server.isolated, server.suspects = 5, 1, 1
    children = make_children(POOL, server)
    children.work()
    for process in children.running:
        children.rows[process.index].ready = True
        children.rows[process.index].lease(time.monotonic() + 60)
    children.leases.backlog._poll_at_s = 0.0
    children.leases.tick(children.rows)
    return children


def given(verb: str, id_: str = "1", started_at: int = STARTED) -> Instruction:
    return Instruction(id_, verb, started_at, at=2_000, by="ada", reason="why")


def quiet(children: ChildManager) -> list[bool]:
    return [children.rows[process.index].quiet for process in children.running]


def test_each_instruction_is_obeyed_once_and_only_by_the_process_that_is_meant(children: ChildManager) -> None:
    stops: list[str] = []
    obedience = Instructions(children, started_at=STARTED, stop=lambda: stops.append("stop"))

    assert not obedience.obey(given("stop", started_at=STARTED - 1)) and stops == []
    assert obedience.obey(given("quiet")) and quiet(children) == [True, True]
    assert obedience.quieted == given("quiet")
    assert not obedience.obey(given("quiet"))
    assert obedience.obey(given("resume", "2")) and quiet(children) == [False, False] and obedience.quieted is None
    assert obedience.obey(given("explode", "3")) and quiet(children) == [False, False], "of a newer release"
    assert obedience.obey(given("stop", "4")) and not obedience.obey(given("stop", "4"))
    assert stops == ["stop"]


def test_no_quiet_period_begins_or_ends_while_an_operator_keeps_it_quieted(children: ChildManager) -> None:
    periods = QuietPeriods(children)
    assert periods.work() < math.inf and quiet(children) == [True, True], "a suspect waits to run alone"

    Instructions(children, started_at=STARTED, stop=lambda: None).obey(given("quiet"))

    assert periods.work() == math.inf and quiet(children) == [True, True]
    assert periods.work() == math.inf


def test_a_child_that_starts_while_it_is_quieted_is_quiet_from_the_start(children: ChildManager) -> None:
    Instructions(children, started_at=STARTED, stop=lambda: None).obey(given("quiet"))
    process = children.running[0]

    children._start(process.index)

    assert children.rows[process.index].quiet
