"""Leases of a pool's children: names, losses, and what a server that refuses or is slow does to the supervisor."""

from __future__ import annotations

import time
from math import inf

import dramatiq
import pytest

from switchyard.broker.queue.leases import ANSWER_S, TICK_S
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard
from switchyard.workers.shared.child_table import ChildRow, ChildTable, Running
from switchyard.workers.supervisor.children import POLL_AGAIN_S, CancellationWatch
from switchyard.workers.supervisor.leases import ChildLeases, Leftovers, connect_leases
from tests.unit.workers.supervisor.conftest import SERVED, Server, make_leases

RAN = Running(lane=0, id=b"ran", token=1, start_ns=0, limit_ns=2_000_000_000)


@pytest.fixture
def server() -> Server:
    """A server that grants every lease."""
    return Server()


@pytest.fixture
def leases(server: Server) -> ChildLeases:
    """The leases of a pool with a single slot, which needs no heir."""
    return make_leases(Pool("work", "processes", ("work",), processes=1, slots=1), server)


def test_a_child_that_could_not_be_started_keeps_no_lease(leases: ChildLeases) -> None:
    [row] = ChildTable.create(1, 1).rows
    names = [leases.adopt(1, row, SERVED) for _ in range(3)]

    assert [leases.keeper.leased_until_s(name) > 0 for name in names] == [False, False, True]
    assert len(set(names)) == 3


def test_a_lease_that_is_lost_while_another_child_is_given_some_is_reported(
    leases: ChildLeases, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.0)
    rows = dict(enumerate(ChildTable.create(2, 1).rows, start=1))
    loser = leases.adopt(1, rows[1], SERVED)
    server.lost = [f"{loser}/live"]
    leases.adopt(2, rows[2], SERVED)

    assert leases.seconds_to_next() == 0.0
    assert leases.tick(rows) == [1]
    assert leases.tick(rows) == []
    assert not rows[1].leased
    assert rows[2].leased


def test_a_server_that_refuses_to_show_cancellations_does_not_end_the_supervisor() -> None:
    def refuse(running: object) -> set[tuple[int, Running]]:
        server = Server()
        server.refuses = True
        server.call(None, None, [])
        return set()

    cancellations = CancellationWatch(refuse)

    assert 0.9 * POLL_AGAIN_S < cancellations.update({1: [RAN]}) <= POLL_AGAIN_S


def test_a_server_that_refuses_to_show_what_waits_does_not_end_the_supervisor(
    leases: ChildLeases, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.waiting = 3
    leases.tick({})
    assert leases.backlog.waiting
    server.refuses = True
    leases.backlog._poll_at_s = 0.0

    leases.tick({})

    assert not leases.backlog.waiting
    assert not leases.keeper.away
    assert "queue work: the broker refuses to count its backlog" in caplog.text


class SlowServer(Server):
    """A server each of whose answers takes as long as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def call(self, operation: object, keys: object, args: list[str], *, budget_s: float = 1.0) -> object:
        """Answer late."""
        self.now_s += budget_s * 0.9
        return super().call(operation, keys, args) or 1

    def monotonic(self) -> float:
        return self.now_s


def test_many_suspects_on_a_slow_server_cost_about_a_second_and_are_isolated_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = SlowServer()
    for module in (
        "switchyard.broker.queue.leases",
        "switchyard.broker.queue.leases",
        "switchyard.workers.supervisor.leases",
    ):
        monkeypatch.setattr(f"{module}.time", server)
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=20), server)
    leases.keeper.reclaim = lambda child, leftovers: None  # type: ignore[method-assign]
    leases._suspects = [("work", None)] * 20  # type: ignore[list-item]
    for queue in leases._queues.values():
        monkeypatch.setattr(
            queue, "isolate", lambda lease, budget_s: server.call(Named("isolate"), [], [], budget_s=budget_s)
        )

    began_s = server.now_s
    leases.settle(Leftovers("child", SERVED))

    assert server.now_s - began_s <= TICK_S + ANSWER_S
    assert not leases.settled
    assert 0 < leases.take_isolated_waiting() < 20


@pytest.mark.parametrize("ticks", [inf, pytest.param(1.9, marks=pytest.mark.long)])
def test_a_record_of_a_cancelled_job_costs_no_more_than_a_second_while_the_server_is_down(
    monkeypatch: pytest.MonkeyPatch, ticks: float
) -> None:
    yard = declared_yard()
    leases = connect_leases(yard.pools[0], yard, dramatiq.get_broker(), "redis://127.0.0.1:1/0")
    monkeypatch.setattr(leases.keeper, "reclaim", lambda child, leftovers=None: None)

    began_s = time.monotonic()
    leases.settle(Leftovers("child", leases.served, cancelled=[RAN]))

    assert time.monotonic() - began_s < ticks * TICK_S, "a second try would take 2 s"
    leases.close()


class Named:
    """An operation of a name."""

    def __init__(self, name: str) -> None:
        self.name = name


def oldest(leases: ChildLeases, server: Server, row: ChildRow) -> list[str]:
    """Return what a report a second later says of a child: how many of its oldest leases may run, and ids."""
    leases._report_at_s = 0.0
    leases.tick({1: row})
    [work] = server.works.values()
    return [work.split()[0], *work.splitlines()[1:]]


def test_a_report_tells_stock_from_what_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.broker.queue.leases.REPORT_S", 0.0)
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=2), server)
    row = ChildTable.create(1, 2).rows[0]
    leases.adopt(1, row, SERVED, slots=2)
    row.lease(time.monotonic() + 60)

    idle = oldest(leases, server, row)
    first, second = (row.start(0, b"%d" % number, b"1", 0) for number in (1, 2))
    begun = oldest(leases, server, row)
    full = oldest(leases, server, row)
    monkeypatch.setattr("switchyard.workers.supervisor.leases.LONG_S", 0.0)
    long = oldest(leases, server, row)
    assert first is not None and second is not None
    row.end(first, worked_off=True)
    first = row.start(0, b"1", b"1", 0)
    assert first is not None
    one_done = oldest(leases, server, row)
    for slot in (first, second):
        row.end(slot, worked_off=True)
    busy = [row.start(0, b"3", b"3", 0), row.start(0, b"4", b"4", 0)]
    short = oldest(leases, server, row)

    assert (idle, begun, full, long) == (["500"], ["500"], ["2"], ["2", "1", "2"])
    assert one_done[0] == "3"
    assert (short[0], len(busy)) == ("500", 2)


@pytest.mark.parametrize(("slots", "blamed"), [(1, []), (2, [b"1"])])
def test_what_ended_before_something_else_ran_in_the_only_slot_is_not_blamed(
    server: Server, slots: int, blamed: list[bytes]
) -> None:
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=slots), server)
    row = ChildTable.create(1, slots).rows[0]
    left = []
    for runs in (False, True):
        leases.adopt(1, row, SERVED, slots=slots)
        row.lease(time.monotonic() + 60)
        ended = row.start(0, b"1", b"1", 0)
        assert ended is not None
        row.end(ended, worked_off=True)
        if runs:
            row.start(0, b"2", b"2", 0)
        left.append([ran.id for ran in leases.leftovers(1, row).unwritten])
        row.clear()

    assert left == [[b"1"], blamed]


def test_a_report_is_sent_once_unless_it_changes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = make_leases(Pool("work", "threads", ("work",), processes=1, slots=2), server)
    row = ChildTable.create(1, 2).rows[0]
    leases.adopt(1, row, SERVED, slots=2)
    server.works.clear()

    for _ in range(3):
        leases._report_at_s = 0.0
        leases.tick({1: row})

    assert server.works == {}
