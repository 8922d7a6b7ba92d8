"""What a pool's supervisor makes of a child that ended, and of a pause in the middle of a replacement."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable
from typing import cast

import pytest

from apps.platform.workers.shared.child_table import ChildRow, ChildTable, Running
from apps.platform.workers.supervisor.cancellation import LOOK_AGAIN_S, CancellationWatch
from apps.platform.workers.supervisor.children import LOOK_FOR_SUCCESSOR_S, STUCK_S, ChildManager
from apps.platform.workers.supervisor.leases import ChildLeases, Served
from apps.platform.workers.supervisor.processes import Process, ProcessSet
from broker.errors import BrokerRefused
from broker.keys.keys import Keys
from broker.queue.leases import LeaseKeeper
from broker.queue.operations import QueueOperations
from broker.redis.calls import RedisCalls
from broker.topology import Pool

SERVED = Served(("work",), (("work", "live"),))
OVER = Running(lane=0, id=b"over", token=1, start_ns=0, limit_ns=2_000_000_000)
NEIGHBOUR = Running(lane=0, id=b"neighbour", token=2, start_ns=0, limit_ns=60_000_000_000)


def test_a_pause_in_the_middle_of_a_replacement_does_not_end_all_replacements() -> None:
    crew = ChildManager.__new__(ChildManager)
    crew.pool = Pool("work", queues=("work",), kind="threads", processes=1, slots=1, recycle_after=10)
    crew._keeper = ProcessSet(
        selectors.DefaultSelector(), 1, spare=1, start=lambda place: 0, ended=lambda place, pid, status: True
    )
    crew._own, crew._alone = crew._keeper.members, []
    crew._rows = dict(enumerate(ChildTable.create(2, 1).rows, start=1))
    crew._endings, crew._weigh_at_s, crew._resting = {}, 0.0, False
    crew._successor = (crew._own[0], crew._own[1])
    assert crew._mind_age() == LOOK_FOR_SUCCESSOR_S

    crew.rest()
    crew.resume()

    assert crew._mind_age() == math.inf


class Leases:
    """Remembers who was given leases, and who gave them up; says once who lost them."""

    away = True

    def __init__(self) -> None:
        self.children: list[str] = []
        self.lost: list[str] = []

    def adopt(self, child: str, lanes: object) -> None:
        """Adopt."""
        self.children.append(child)

    def forget(self, child: str) -> None:
        """Forget."""
        self.children.remove(child)

    def tick(self) -> list[str]:
        """Say who lost a lease."""
        lost, self.lost = self.lost, []
        return lost

    def seconds_to_next(self) -> float:
        """Return a time."""
        return 1.0

    def leased_until_s(self, child: str) -> float:
        """Return a time."""
        return 0.0


@pytest.fixture
def leases() -> ChildLeases:
    """The leases of a pool, of which nobody has any."""
    leases = ChildLeases.__new__(ChildLeases)
    leases._keeper = cast(LeaseKeeper, Leases())
    leases._name, leases._own, leases._generations, leases._children, leases._lost = "pool", "own", {}, {}, set()
    return leases


def test_a_child_that_could_not_be_started_keeps_no_lease(leases: ChildLeases) -> None:
    [row] = ChildTable.create(1, 1).rows
    names = [leases.adopt(1, row, SERVED) for _ in range(3)]

    assert cast(Leases, leases._keeper).children == names[-1:]


def test_a_child_is_told_of_that_lost_its_leases_just_when_another_one_was_given_some(leases: ChildLeases) -> None:
    rows = dict(enumerate(ChildTable.create(2, 1).rows, start=1))
    loser = leases.adopt(1, rows[1], SERVED)
    cast(Leases, leases._keeper).lost = [loser]
    leases.adopt(2, rows[2], SERVED)

    assert leases.seconds_to_next() == 0.0
    assert leases.tick(rows) == [1]
    assert leases.tick(rows) == []


class Refusing:
    """A server that answers with an error, as it does where a key is of a wrong type."""

    def command(self, *words: object, budget_s: float) -> None:
        """Refuse."""
        raise BrokerRefused("EXISTS", "WRONGTYPE Operation against a key holding the wrong kind of value")


def test_a_server_that_refuses_to_say_who_was_asked_to_stop_does_not_end_the_supervisor() -> None:
    def refuse(running: object) -> set[tuple[int, Running]]:
        raise BrokerRefused("EXISTS", "WRONGTYPE Operation against a key holding the wrong kind of value")

    stops = CancellationWatch(refuse)

    assert 0.9 * LOOK_AGAIN_S < stops.mind({1: [OVER]}) <= LOOK_AGAIN_S


def test_a_server_that_refuses_to_say_what_waits_does_not_end_the_supervisor() -> None:
    leases = ChildLeases.__new__(ChildLeases)
    leases._wire, leases._families = (
        cast(RedisCalls, Refusing()),
        {"work": QueueOperations(cast(RedisCalls, Refusing()), Keys().queue("work"))},
    )
    leases.served, leases._looks_after, leases._look_at_s = SERVED, ["work"], 0.0

    leases._look()

    assert not leases.waiting


def test_a_pool_whose_broker_is_away_is_not_unwell_for_what_nobody_can_take() -> None:
    leases = ChildLeases.__new__(ChildLeases)
    leases._keeper = cast(LeaseKeeper, Leases())  # away
    leases._lost, leases._children, leases._own, leases.waiting = set(), {}, "own", True
    leases.tick({})
    assert not leases.waiting

    crew = ChildManager.__new__(ChildManager)
    crew._leases, crew._own, crew._rows = leases, [], {}
    crew._took = (-1, 0.0)
    assert crew.unwell() == ""
    leases._keeper.away = False  # type: ignore[misc]
    assert crew.unwell() == "no child works"


class Clock:
    """A time that is set by hand."""

    now_s = 0.0

    def monotonic(self) -> float:
        """Return it."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that a crew sees."""
    clock = Clock()
    monkeypatch.setattr("apps.platform.workers.supervisor.children.time", clock)
    return clock


@pytest.fixture
def crew() -> ChildManager:
    """The crew of a pool with two children that work, one free place, and messages that wait."""
    leases = ChildLeases.__new__(ChildLeases)
    leases._keeper, leases.waiting = cast(LeaseKeeper, Leases()), True
    leases._keeper.away = False  # type: ignore[misc]
    crew = ChildManager.__new__(ChildManager)
    crew._leases, crew._took = leases, (-1, 0.0)
    crew._rows = dict(enumerate(ChildTable.create(3, 4).rows, start=1))
    crew._own = [Process(1, pid=101), Process(2, pid=102), Process(3, wanted=False)]
    for member in crew._own[:2]:
        crew._rows[member.number].lease(time.monotonic() + 60)
        crew._rows[member.number].set_working()
    return crew


def test_a_pool_that_takes_nothing_though_messages_wait_is_unwell(crew: ChildManager, clock: Clock) -> None:
    assert crew.unwell() == ""
    clock.now_s = STUCK_S
    assert crew.unwell() == ""

    clock.now_s = STUCK_S + 1
    assert crew.unwell() == "messages wait, and none was taken for 31 s"

    crew._rows[2].end(begin(crew._rows[2]), worked_off=True)
    assert crew.unwell() == "", "it takes messages again"
    clock.now_s += STUCK_S
    assert crew.unwell() == "", "and has all the time anew"
    clock.now_s += 1
    assert crew.unwell() == "messages wait, and none was taken for 31 s"


def test_a_pool_has_its_time_from_when_it_last_ran_something(crew: ChildManager, clock: Clock) -> None:
    slot = begin(crew._rows[1])
    clock.now_s = 10 * STUCK_S
    assert crew.unwell() == ""
    crew._rows[1].end(slot, worked_off=True)

    clock.now_s = 11 * STUCK_S
    assert crew.unwell() == ""
    clock.now_s += 1
    assert crew.unwell() == "messages wait, and none was taken for 31 s"


def begin(row: ChildRow) -> int:
    """Take a message."""
    slot = row.start(0, b"id", b"1", 0)
    assert slot is not None
    return slot


def run_something(crew: ChildManager) -> None:
    """Have a child run a message."""
    begin(crew._rows[1])


def have_nothing_wait(crew: ChildManager) -> None:
    """Have no message wait, or all of them paused."""
    crew._leases.waiting = False


def lose_the_broker(crew: ChildManager) -> None:
    """Have the broker not answer."""
    crew._leases._keeper.away = True  # type: ignore[misc]


@pytest.mark.parametrize("excuse", [run_something, have_nothing_wait, lose_the_broker])
def test_a_pool_that_runs_something_or_has_nothing_to_take_is_well_for_any_time(
    crew: ChildManager, clock: Clock, excuse: Callable[[ChildManager], None]
) -> None:
    excuse(crew)

    for clock.now_s in (0.0, STUCK_S + 1, 10 * STUCK_S):
        assert crew.unwell() == ""


def test_a_broker_that_was_away_gives_a_pool_all_its_time_anew(crew: ChildManager, clock: Clock) -> None:
    assert crew.unwell() == ""
    lose_the_broker(crew)
    clock.now_s = 2 * STUCK_S
    assert crew.unwell() == ""

    crew._leases._keeper.away = False  # type: ignore[misc]

    clock.now_s += 1
    assert crew.unwell() == ""
    clock.now_s += STUCK_S
    assert crew.unwell() == "messages wait, and none was taken for 31 s"
