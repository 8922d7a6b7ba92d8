"""The children of a pool: successors, and isolated children for suspects."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import replace

import pytest

from switchyard.broker.topology import MOST_ALONE, Pool
from switchyard.workers.supervisor.children import CRASHES_KEPT_S, ChildManager
from switchyard.workers.supervisor.processes import ExitCause
from tests.unit.workers.supervisor.fakes import Server, begin, make_children

POOL = Pool("work", queues=("work",), kind="threads", processes=1, slots=4)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def children(server: Server, monkeypatch: pytest.MonkeyPatch) -> ChildManager:
    """The children of a pool; started, each has a pid of its own and no process."""
    pids = iter(range(100, 200))
    monkeypatch.setattr("switchyard.workers.supervisor.children.start_child", lambda *_, **__: next(pids))
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", lambda pid, options: (0, 0, None))
    return make_children(POOL, server)


def report_isolated(children: ChildManager, server: Server, count: int) -> None:
    """Have a poll of the backlog find suspects, and the children act on it."""
    server.isolated = count
    children.leases.backlog._poll_at_s = 0.0
    children.leases.tick(children.rows)
    children.work()
    children.work()


def isolated_pids(children: ChildManager) -> list[int]:
    return [process.pid for process in children.isolated if process.pid]


def test_a_suspect_that_runs_long_does_not_hold_up_the_next_one(children: ChildManager, server: Server) -> None:
    children.work()
    report_isolated(children, server, 1)
    assert len(isolated_pids(children)) == 1
    row = children.rows[children.isolated[0].index]
    row.lease(time.monotonic() + 60)
    begin(row)

    report_isolated(children, server, 1)

    assert len(isolated_pids(children)) == 2


def test_an_isolated_child_that_is_free_takes_the_next_suspect(children: ChildManager, server: Server) -> None:
    children.work()
    report_isolated(children, server, 1)

    report_isolated(children, server, 1)

    assert len(isolated_pids(children)) == 1


def test_there_are_never_more_isolated_children_than_the_pool_has_room_for(
    children: ChildManager, server: Server
) -> None:
    children.work()

    report_isolated(children, server, 100)

    assert len(isolated_pids(children)) == MOST_ALONE["threads"]


@pytest.mark.usefixtures("children")
def test_a_pool_bounds_its_isolated_children_itself(server: Server) -> None:
    own = make_children(replace(POOL, isolated=1), server)
    own.work()

    report_isolated(own, server, 100)

    assert len(isolated_pids(own)) == 1


def test_suspects_wait_while_the_pool_pauses(children: ChildManager, server: Server) -> None:
    children.pause()

    report_isolated(children, server, 1)

    assert isolated_pids(children) == []


def test_a_pool_rests_once_its_children_have_run_nothing_for_a_while(children: ChildManager) -> None:
    assert not children.rest(), "no child is up yet"
    children.work()
    row = children.rows[children.running[0].index]
    row.ready = True
    assert children.rest() and row.dozes

    begin(row)
    row.beat()
    assert not children.rest() and not row.dozes, "its start has woken the supervisor"

    row.end(0, worked_off=True)
    row.beat()
    assert not children.rest(), "it has just run something"


def test_a_child_is_replaced_beside_itself_where_there_is_room(
    children: ChildManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.kill", lambda pid, signum: sent.append(pid))
    children.work()
    [first] = children.running

    children.replace(first, ExitCause("hard_limit"))
    children.work()

    assert sent == [first.pid]
    assert [process.wanted for process in children.own] == [False, True]
    assert len(children.running) == 2


def test_crashes_are_reported_for_an_hour_and_what_is_intended_is_none(
    children: ChildManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = time.monotonic()
    statuses = [int(signal.SIGKILL), int(signal.SIGKILL), int(signal.SIGSEGV)]
    used = resource.getrusage(resource.RUSAGE_SELF)

    def end(pid: int, options: int) -> tuple[int, int, object]:
        return (pid, statuses.pop(), used) if statuses else (0, 0, None)

    children.work()
    [process] = children.running
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", end)
    while statuses:
        children.process_set.fill(process)
        children.process_set.work()

    assert children.recent_crashes() == {"SIGKILL": 2, "SIGSEGV": 1}
    monkeypatch.setattr("switchyard.workers.supervisor.children.time.monotonic", lambda: began_s + CRASHES_KEPT_S + 60)
    assert children.recent_crashes() == {}
    assert children.restarts == {"SIGKILL": 2, "SIGSEGV": 1}


@pytest.mark.parametrize(("drained", "level"), [(True, "WARNING"), (False, "ERROR")])
def test_a_child_that_drains_although_nobody_told_it_to_is_replaced_without_an_error(
    children: ChildManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, drained: bool, level: str
) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    children.work()
    [process] = children.running
    children.rows[process.index].drained = drained
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", lambda pid, options: (pid, 0, used))

    children.process_set.work()

    assert [record.levelname for record in caplog.records if "it is replaced" in record.message] == [level]
    assert children.restarts == {"exit": 1}


@pytest.mark.parametrize(("drained", "restarts"), [(True, {}), (False, {"exit": 1})])
def test_a_child_that_a_pause_drains_is_no_crash_when_it_ends_after_the_pause(
    children: ChildManager, monkeypatch: pytest.MonkeyPatch, drained: bool, restarts: dict[str, int]
) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.kill", lambda pid, signum: None)
    children.work()
    [process] = children.running
    children.pause()
    children.resume()
    children.rows[process.index].drained = drained
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", lambda pid, options: (pid, 0, used))

    children.process_set.work()

    assert (children.restarts, sum(children.recent_crashes().values())) == (restarts, len(restarts))
