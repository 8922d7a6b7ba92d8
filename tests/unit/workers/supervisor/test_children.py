"""The children of a pool: started, reaped and replaced, their leases, and isolated children for suspects."""

import math
import os
import resource
import signal
import time
from dataclasses import replace
from math import inf
from types import SimpleNamespace

import dramatiq
import pytest

from switchyard.broker.queue.leases import ANSWER_S, TICK_S
from switchyard.broker.topology import MOST_ALONE, Pool
from switchyard.conf import declared_yard
from switchyard.workers.shared.child_table import ChildRow, ChildTable, Running
from switchyard.workers.supervisor.children import (
    CRASHES_KEPT_S,
    POLL_AGAIN_S,
    POLL_SUCCESSOR_S,
    CancellationWatch,
    ChildManager,
    Recycling,
)
from switchyard.workers.supervisor.leases import ChildLeases, Leftovers, connect_leases
from switchyard.workers.supervisor.processes import ExitCause, Process, ProcessSet, suspects_of
from tests.unit.workers.supervisor.conftest import REFUSED, SERVED, Server, begin, make_children, make_leases

POOL = Pool("work", queues=("work",), kind="threads", processes=1, slots=4)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def children(server: Server, no_processes: None) -> ChildManager:
    """The children of a pool; started, each has a pid of its own and no process."""
    return make_children(POOL, server)


def report_isolated(children: ChildManager, server: Server, count: int) -> None:
    server.isolated = count
    children.leases.backlog._poll_at_s = 0.0
    children.leases.tick(children.rows)
    children.work()
    children.work()


def isolated_pids(children: ChildManager) -> list[int]:
    return [process.pid for process in children.isolated if process.pid]


def test_a_free_isolated_child_takes_the_next_suspect_and_one_that_runs_long_holds_none_up(children, server):
    children.work()
    for _ in range(2):
        report_isolated(children, server, 1)
        assert len(isolated_pids(children)) == 1
    row = children.rows[children.isolated[0].index]
    row.lease(time.monotonic() + 60)
    begin(row)

    report_isolated(children, server, 1)

    assert len(isolated_pids(children)) == 2


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(("isolated", "most"), [(None, MOST_ALONE["threads"]), (1, 1)])
def test_isolated_children_are_never_more_than_the_pool_has_room_for_or_declares(server, isolated, most):
    children = make_children(replace(POOL, isolated=isolated), server)
    children.work()

    report_isolated(children, server, 100)

    assert len(isolated_pids(children)) == most


def test_suspects_wait_while_the_pool_pauses(children, server):
    children.pause()

    report_isolated(children, server, 1)

    assert isolated_pids(children) == []


def test_a_pool_rests_once_its_children_have_run_nothing_for_a_while(children):
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


def test_a_child_is_replaced_where_there_is_room(children, monkeypatch):
    sent: list[int] = []
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.kill", lambda pid, signum: sent.append(pid))
    children.work()
    [first] = children.running

    children.replace(first, ExitCause("hard_limit"))
    children.work()

    assert (sent, [process.wanted for process in children.own]) == ([first.pid], [False, True])
    assert len(children.running) == 2


def test_crashes_are_reported_for_an_hour(children, monkeypatch):
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
    assert (children.recent_crashes(), children.restarts) == ({}, {"SIGKILL": 2, "SIGSEGV": 1})


@pytest.mark.parametrize(
    ("pauses", "drained", "levels", "restarts"),
    [
        (False, True, ["WARNING"], {"exit": 1}),
        (False, False, ["ERROR"], {"exit": 1}),
        (True, True, [], {}),
        (True, False, ["ERROR"], {"exit": 1}),
    ],
)
def test_a_child_that_drains_by_itself_is_replaced_without_an_error_and_one_that_a_pause_drains_is_no_crash(
    children, monkeypatch, caplog, pauses, drained, levels, restarts
):
    used = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.kill", lambda pid, signum: None)
    children.work()
    [process] = children.running
    if pauses:
        children.pause()
        children.resume()
    children.rows[process.index].drained = drained
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.wait4", lambda pid, options: (pid, 0, used))

    children.process_set.work()

    assert [record.levelname for record in caplog.records if "it is replaced" in record.message] == levels
    assert (children.restarts, sum(children.recent_crashes().values())) == (restarts, len(restarts))


def test_a_process_that_dies_before_it_worked_waits_longer_each_time_up_to_30_s_and_work_forgives_it():
    process = Process(1)

    waits = [process.delay_s(worked=False) for _ in range(12)]

    assert (waits[:4], waits[-1]) == ([0.1, 0.2, 0.4, 0.8], 30.0)
    assert waits == sorted(waits)
    assert [process.delay_s(worked=worked) for worked in (True, False)] == [0.0, 0.1]


def test_a_process_is_reaped_and_noted_when_it_has_ended():
    started: list[int] = []
    ended: list[int] = []

    def start(index: int) -> int:
        started.append(os.spawnlp(os.P_NOWAIT, "true", "true"))
        return started[-1]

    def note_end(index: int, pid: int, status: int) -> bool:
        ended.append(pid)
        processes.stop()
        return True

    processes = ProcessSet(1, start=start, ended=note_end)
    processes.work()
    os.waitid(os.P_PID, started[0], os.WEXITED | os.WNOWAIT)  # waits for its end, and leaves it to be reaped
    processes.work()

    assert (ended, processes.pids) == (started, [])


OVER = Running(lane=0, id=b"over", token=1, start_ns=0, limit_ns=2_000_000_000)
NEIGHBOUR = Running(lane=0, id=b"neighbour", token=2, start_ns=0, limit_ns=60_000_000_000)
ENDED = Running(lane=0, id=b"ended", token=3, start_ns=0, limit_ns=0)


@pytest.mark.parametrize(
    ("left", "over", "clean", "found"),
    [
        *(({"running": [OVER, NEIGHBOUR]}, (OVER,), clean, ((OVER,), "limit of 2 s")) for clean in (True, False)),
        ({"running": [NEIGHBOUR]}, (OVER,), True, ((), "")),
        *(({name: [ENDED]}, (), False, ((ENDED,), "exited with 1")) for name in ("running", "unwritten")),
        *(({name: [ENDED]}, (), True, ((), "")) for name in ("running", "unwritten")),
    ],
)
def test_what_is_over_its_limit_or_left_something_that_crashes_is_blamed_and_what_ended_in_time_is_not(
    left, over, clean, found
):
    ending = ExitCause("hard_limit", over=over) if over else None

    assert suspects_of(Leftovers("child", SERVED, **left), ending, clean=clean, description="exited with 1") == found


def test_a_pause_in_the_middle_of_a_replacement_does_not_end_all_replacements():
    pool = Pool("work", queues=("work",), kind="threads", processes=1, slots=1, recycle_after=10)
    children = make_children(pool, Server())
    recycling = Recycling(children)
    children.own[0].pid = 2**22  # beyond the largest pid
    row = children.rows[1]
    row.lease(9e8)
    for _ in range(10):
        row.end(begin(row), worked_off=True)
    assert recycling.enforce() == POLL_SUCCESSOR_S
    assert children.own[1].wanted

    children.pause()
    children.resume()
    children.own[0].pid = 0

    assert recycling.enforce() == math.inf


def test_a_pause_in_the_middle_of_a_replacement_leaves_every_position_filled():
    pool = Pool("work", queues=("work",), kind="threads", processes=2, slots=1, recycle_after=1)
    children = make_children(pool, Server())
    recycling = Recycling(children)
    free, old, other = children.own
    free.wanted, old.pid, other.pid, other.wanted = False, 2**22, 2**22 + 1, True  # pids beyond the largest one
    row = children.rows[old.index]
    row.lease(9e8)
    row.end(begin(row), worked_off=True)
    assert recycling.enforce() == POLL_SUCCESSOR_S
    assert free.wanted

    children.pause()
    old.pid = other.pid = 0
    recycling.enforce()
    children.resume()
    children.rows[free.index].working = True
    recycling.enforce()

    assert free.wanted and old.wanted


RAN = Running(lane=0, id=b"ran", token=1, start_ns=0, limit_ns=2_000_000_000)


@pytest.fixture
def leases(server: Server) -> ChildLeases:
    """The leases of a pool with a single slot, which needs no heir."""
    return make_leases(Pool("work", "processes", ("work",), processes=1, slots=1), server)


def test_a_child_that_could_not_be_started_keeps_no_lease(leases):
    [row] = ChildTable.create(1, 1).rows
    names = [leases.adopt(1, row, SERVED) for _ in range(3)]

    assert [leases.keeper.leased_until_s(name) > 0 for name in names] == [False, False, True]
    assert len(set(names)) == 3


def test_a_lost_lease_is_reported_once(leases, server, monkeypatch):
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.0)
    rows = dict(enumerate(ChildTable.create(2, 1).rows, start=1))
    loser = leases.adopt(1, rows[1], SERVED)
    server.lost = [f"{loser}/live"]
    leases.adopt(2, rows[2], SERVED)

    assert (leases.seconds_to_next(), leases.tick(rows), leases.tick(rows)) == (0.0, [1], [])
    assert not rows[1].leased and rows[2].leased


def test_a_server_that_refuses_to_show_cancellations_does_not_end_the_supervisor():
    def refuse(running: object) -> set[tuple[int, Running]]:
        server = Server()
        server.error = REFUSED
        server.call(None, None, [])
        return set()

    assert 0.9 * POLL_AGAIN_S < CancellationWatch(refuse).update({1: [RAN]}) <= POLL_AGAIN_S


def test_a_refused_backlog_ends_nothing(leases, server, caplog):
    server.waiting = 3
    leases.tick({})
    assert leases.backlog.waiting
    server.error = REFUSED
    leases.backlog._poll_at_s = 0.0

    leases.tick({})

    assert not leases.backlog.waiting and not leases.keeper.away
    assert "queue work: the broker refuses to count its backlog" in caplog.text


class SlowServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def call(self, operation: object, keys: object, args: list[str], *, budget_s: float = 1.0) -> object:
        self.now_s += budget_s * 0.9
        return super().call(operation, keys, args) or 1

    def monotonic(self) -> float:
        return self.now_s


def test_many_suspects_on_a_slow_server_cost_a_second_and_are_isolated_in_turn(monkeypatch):
    server = SlowServer()
    for module in ("switchyard.broker.queue.leases", "switchyard.workers.supervisor.leases"):
        monkeypatch.setattr(f"{module}.time", server)
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=20), server)
    leases.keeper.reclaim = lambda child, leftovers: None  # type: ignore[method-assign]
    leases._suspects = [("work", None)] * 20  # type: ignore[list-item]
    for queue in leases._queues.values():
        monkeypatch.setattr(
            queue,
            "isolate",
            lambda lease, budget_s: server.call(SimpleNamespace(name="isolate"), [], [], budget_s=budget_s),
        )

    began_s = server.now_s
    leases.settle(Leftovers("child", SERVED))

    assert server.now_s - began_s <= TICK_S + ANSWER_S
    assert not leases.settled
    assert 0 < leases.take_isolated_waiting() < 20


@pytest.mark.parametrize("ticks", [inf, pytest.param(1.9, marks=pytest.mark.long)])
def test_a_cancelled_job_costs_at_most_a_second_without_a_server(monkeypatch, ticks):
    yard = declared_yard()
    leases = connect_leases(yard.pools[0], yard, dramatiq.get_broker(), "redis://127.0.0.1:1/0")
    monkeypatch.setattr(leases.keeper, "reclaim", lambda child, leftovers=None: None)

    began_s = time.monotonic()
    leases.settle(Leftovers("child", leases.served, cancelled=[RAN]))

    assert time.monotonic() - began_s < ticks * TICK_S, "a second try would take 2 s"
    leases.close()


def oldest(leases: ChildLeases, server: Server, row: ChildRow) -> list[str]:
    """Return what a report a second later says of a child: how many of its oldest leases may run, and ids."""
    leases._report_at_s = 0.0
    leases.tick({1: row})
    [work] = server.works.values()
    return [work.split()[0], *work.splitlines()[1:]]


def test_a_report_tells_stock_from_what_runs(server, monkeypatch):
    monkeypatch.setattr("switchyard.broker.queue.leases.REPORT_S", 0.0)
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=2), server)
    row = ChildTable.create(1, 2).rows[0]
    leases.adopt(1, row, SERVED, slots=2)
    row.lease(time.monotonic() + 60)

    idle = oldest(leases, server, row)
    first, second = begin(row, b"1"), begin(row, b"2")
    begun = oldest(leases, server, row)
    full = oldest(leases, server, row)
    monkeypatch.setattr("switchyard.workers.supervisor.leases.LONG_S", 0.0)
    long = oldest(leases, server, row)
    row.end(first, worked_off=True)
    first = begin(row, b"1")
    one_done = oldest(leases, server, row)
    for slot in (first, second):
        row.end(slot, worked_off=True)
    busy = [row.start(0, b"3", b"3", 0), row.start(0, b"4", b"4", 0)]
    short = oldest(leases, server, row)

    assert (idle, begun, full, long) == (["500"], ["500"], ["2"], ["2", "1", "2"])
    assert (one_done[0], short[0], len(busy)) == ("3", "500", 2)


@pytest.mark.parametrize(("slots", "blamed"), [(1, []), (2, [b"1"])])
def test_what_ended_before_another_in_the_only_slot_is_unblamed(server, slots, blamed):
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=slots), server)
    row = ChildTable.create(1, slots).rows[0]
    left = []
    for runs in (False, True):
        leases.adopt(1, row, SERVED, slots=slots)
        row.lease(time.monotonic() + 60)
        row.end(begin(row, b"1"), worked_off=True)
        if runs:
            row.start(0, b"2", b"2", 0)
        left.append([ran.id for ran in leases.leftovers(1, row).unwritten])
        row.clear()

    assert left == [[b"1"], blamed]


def test_a_report_is_sent_once_unless_it_changes(server, monkeypatch):
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=2), server)
    row = ChildTable.create(1, 2).rows[0]
    leases.adopt(1, row, SERVED, slots=2)
    server.works.clear()

    for _ in range(3):
        leases._report_at_s = 0.0
        leases.tick({1: row})

    assert server.works == {}
