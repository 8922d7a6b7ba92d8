"""Health of a pool and its children, quiet periods in which nothing runs beside a lapse suspect, and instructions."""

import math
import time

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.pool_reports import Instruction
from switchyard.broker.topology import Pool
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.hard_limits import PATIENCE_S, PERIOD_S, SETTLED_S, START_S, Heartbeats, QuietPeriods
from switchyard.workers.supervisor.processes import Process
from switchyard.workers.supervisor.report import STUCK_S, Instructions, PoolHealth
from tests.unit.workers.supervisor.conftest import Server, begin, make_children

STUCK = "messages wait, and none was taken for 31 s"


class SetClock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Bench:
    """A pool with two children that work, one free position, and messages that wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = Server()
        self.server.waiting = 7
        self.children = make_children(Pool("work", queues=("work",), kind="threads", processes=2, slots=4), self.server)
        for process in self.children.own[:2]:
            process.pid = 100 + process.index
            self.row(process.index).lease(time.monotonic() + 60)
            self.row(process.index).working = True
        self.clock = SetClock()
        monkeypatch.setattr("switchyard.workers.supervisor.report.time", self.clock)
        self.health = PoolHealth(self.children)
        self.poll()

    def row(self, index: int) -> ChildRow:
        return self.children.rows[index]

    def poll(self) -> None:
        self.children.leases.keeper.poll_now()
        self.children.leases.backlog._poll_at_s = 0.0
        self.children.leases.tick(self.children.rows)

    def reason(self) -> str:
        return self.health.unhealthy_reason()

    def run_something(self) -> None:
        begin(self.row(1))

    def have_nothing_wait(self) -> None:
        """Have no message wait, or all of them paused."""
        self.server.waiting = 0
        self.poll()

    def lose_the_broker(self) -> None:
        self.server.error = BrokerUnavailable("renew", "away")
        self.poll()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_pool_that_takes_nothing_though_messages_wait_is_unhealthy(bench):
    assert bench.reason() == ""
    bench.clock.now_s = STUCK_S
    assert bench.reason() == ""

    bench.clock.now_s = STUCK_S + 1
    assert bench.reason() == STUCK

    bench.row(2).end(begin(bench.row(2)), worked_off=True)
    assert bench.reason() == "", "it takes messages again"
    bench.clock.now_s += STUCK_S
    assert bench.reason() == "", "and has all the time anew"
    bench.clock.now_s += 1
    assert bench.reason() == STUCK


def test_a_pool_has_its_time_from_when_it_last_ran_something(bench):
    slot = begin(bench.row(1))
    bench.clock.now_s = 10 * STUCK_S
    assert bench.reason() == ""
    bench.row(1).end(slot, worked_off=True)

    bench.clock.now_s = 11 * STUCK_S
    assert bench.reason() == ""
    bench.clock.now_s += 1
    assert bench.reason() == STUCK


@pytest.mark.parametrize("excuse", [Bench.run_something, Bench.have_nothing_wait, Bench.lose_the_broker])
def test_a_pool_that_runs_or_has_nothing_to_take_stays_healthy(bench, excuse):
    excuse(bench)

    for bench.clock.now_s in (0.0, STUCK_S + 1, 10 * STUCK_S):
        assert bench.reason() == ""


def test_a_broker_that_was_away_gives_a_pool_all_its_time_anew(bench):
    assert bench.reason() == ""
    bench.lose_the_broker()
    bench.clock.now_s = 2 * STUCK_S
    assert bench.reason() == ""

    bench.server.error = None
    bench.poll()

    bench.clock.now_s += 1
    assert bench.reason() == ""
    bench.clock.now_s += STUCK_S
    assert bench.reason() == STUCK


def test_a_pool_that_pauses_has_all_its_time_anew_and_one_without_a_child_that_consumes_is_unhealthy(bench):
    assert bench.reason() == ""
    bench.clock.now_s = STUCK_S + 1

    bench.health.reset()

    assert bench.reason() == ""
    for process in bench.children.own:
        process.pid = 0
    assert bench.reason() == "no child works"


class Watched:
    """One child, looked at every second of a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr("switchyard.workers.supervisor.hard_limits.time.monotonic", lambda: self.now_s)
        self.row: ChildRow = ChildTable.create(1, 1).rows[0]
        self.heartbeats = Heartbeats()
        self.pid = 1
        self.row.ready = True

    def silent_after(self, seconds: int) -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = []
        for _ in range(seconds):
            self.now_s += 1.0
            found = self.heartbeats.silent({self.pid: self.row})
        return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_child_that_runs_nothing_and_gives_no_sign_hangs(watched):
    assert (watched.silent_after(11), watched.silent_after(1)) == ([], [(1, 11.0)])


def test_who_held_the_interpreter_for_long_may_end_in_peace_once_its_task_has(watched):
    watched.row.lease(time.monotonic_ns() / 1e9 + 60)
    slot = watched.row.start(0, b"holds", b"1", 60_000_000_000)
    assert watched.silent_after(17) == []

    watched.row.end(slot, worked_off=True)  # the thread that ran it is the first to go on; the one that beats follows

    assert (watched.silent_after(1), watched.silent_after(10)) == ([], [(1, 11.0)])


def test_a_supervisor_that_stood_still_itself_blames_nobody(watched):
    watched.silent_after(9)
    watched.now_s += 60

    assert watched.silent_after(1) == []


def test_who_follows_a_child_that_never_gave_a_sign_has_its_own_time(monkeypatch):
    watched = Watched(monkeypatch)
    watched.row.clear()  # it never came up
    assert watched.silent_after(62) == [(1, 61.0)]

    watched.row.clear()
    watched.pid = 2

    assert watched.silent_after(60) == []


def test_the_time_without_an_answer_counts_while_a_task_runs(watched):
    watched.row.lease(time.monotonic_ns() / 1e9 + 60)
    assert watched.row.start(0, b"holds", b"1", 60_000_000_000) is not None
    watched.silent_after(9)
    assert watched.heartbeats.unanswered() == {1: 8.0}

    watched.row.beat()
    watched.silent_after(1)

    assert watched.heartbeats.unanswered() == {1: 0.0}


POOL = Pool("work", queues=("work",), kind="threads", processes=2, slots=4)
# Time that the machine may add to that of the clock that a test turns.
late = pytest.mark.parametrize("late_s", [2.0, pytest.param(0.5, marks=pytest.mark.long)])


class Clock:
    """A monotonic clock that a test turns; what it adds counts for the periods alone."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("switchyard.workers.supervisor.hard_limits.time", clock)
    return clock


@pytest.fixture
def server() -> Server:
    """A server on which a lapse suspect waits to run alone, and other work."""
    server = Server()
    server.waiting, server.isolated, server.suspects = 5, 1, 1
    return server


@pytest.fixture
def children(server: Server, no_processes: None, monkeypatch: pytest.MonkeyPatch) -> ChildManager:
    """Two children that work; each has a pid of its own and no process."""
    monkeypatch.setattr("switchyard.workers.supervisor.processes.os.kill", lambda pid, signum: None)
    children = make_children(POOL, server)
    children.work()
    for process in children.running:
        children.rows[process.index].ready = True
        children.rows[process.index].lease(time.monotonic() + 60)
    poll(children)
    return children


def poll(children: ChildManager) -> None:
    children.leases.backlog._poll_at_s = 0.0
    children.leases.tick(children.rows)
    children.work()
    children.work()


def end(children: ChildManager, process: Process) -> None:
    process.pid, process.wanted = 0, False


def open_period(periods: QuietPeriods, children: ChildManager, clock: Clock) -> None:
    """Take the steps until the exclusive child runs suspects."""
    periods.work()
    clock.ahead_s += 2 * SETTLED_S
    periods.work()
    periods.work()
    children.work()
    assert children.rows[children.exclusive.index].quiet, "it starts as quiet as the others"
    periods.work()
    assert not children.rows[children.exclusive.index].quiet


def test_the_exclusive_child_takes_nothing_before_all_others_have_ended(children, clock):
    periods, busy = QuietPeriods(children), children.rows[1]
    slot = begin(busy)

    periods.work()
    clock.ahead_s += 10
    periods.work()
    children.work()
    periods.work()
    while_busy = [children.rows[index].quiet for index in (1, 2, children.exclusive.index)]
    busy.end(slot, worked_off=True)
    periods.work()

    assert while_busy == [True, True, True]
    assert busy.start(0, b"id", b"1", 0) is None
    assert not children.rows[children.exclusive.index].quiet


def test_its_leases_say_that_it_runs_alone_others_nothing(children, clock, server):
    open_period(QuietPeriods(children), children, clock)
    children.leases._report_at_s = 0.0
    children.leases.tick(children.rows)

    reports = {owner.rsplit(".", 2)[1]: work.split()[:2] for owner, work in server.works.items()}
    assert reports == {"1": ["0", "0"], "2": ["0", "0"], str(children.exclusive.index): ["1", "1"]}


@late
def test_a_period_ends_and_the_pool_works_as_long_after_it(children, clock, late_s):
    periods = QuietPeriods(children)
    open_period(periods, children, clock)
    last, row = children.exclusive, children.rows[children.exclusive.index]
    row.working = True
    begin(row)
    periods.work()
    clock.ahead_s += PERIOD_S + 1
    periods.work()
    while_it_ends = children.quiet, row.retired

    end(children, last)
    periods.work()
    poll(children)
    pause_s = periods.work()

    assert while_it_ends == (True, True)
    assert not children.quiet and not children.rows[1].quiet
    assert pause_s == pytest.approx(PERIOD_S + 1 + 2 * SETTLED_S, abs=late_s)
    clock.ahead_s += pause_s
    periods.work()
    assert children.quiet


def test_a_period_whose_child_is_idle_or_gone_or_never_works_ends(children, clock):
    for how in ("idle", "gone", "never works"):
        periods = QuietPeriods(children)
        open_period(periods, children, clock)
        row = children.rows[children.exclusive.index]
        if how == "idle":
            row.working = True
            row.progressed()
            clock.ahead_s += 2
        elif how == "never works":
            clock.ahead_s += START_S + 1
        if how != "gone":
            periods.work()
            assert row.retired
        end(children, children.exclusive)
        periods.work()
        assert not children.quiet, how
        poll(children)


def test_suspects_start_no_child_that_would_run_beside_others(children, clock, server):
    server.suspects = 1
    poll(children)

    assert [process.pid for process in children.isolated if process.pid] == []


def test_no_period_begins_beside_another_or_in_a_start(children, clock, server):
    server.quiet = 1
    poll(children)
    QuietPeriods(children).work()
    by_others = children.quiet
    server.suspects, server.isolated = 9, 9
    poll(children)
    children.rows[2].clear()
    QuietPeriods(children).work()

    assert not by_others and not children.quiet
    children.rows[2].ready = True
    QuietPeriods(children).work()
    assert children.quiet


@late
def test_a_long_task_puts_periods_off_and_doubles_waits(children, clock, late_s):
    periods, busy = QuietPeriods(children), children.rows[1]
    slot = begin(busy)
    waited_s = []
    for _ in range(3):
        periods.work()
        periods.work()
        children.work()
        since_s = clock.ahead_s
        while not children.rows[children.exclusive.index].retired:
            clock.ahead_s += 1
            periods.work()
        waited_s.append(clock.ahead_s - since_s)
        end(children, children.exclusive)
        periods.work()
        poll(children)
        assert not children.quiet
        assert periods.work() == pytest.approx(waited_s[-1], abs=2 * late_s), "the pool works for as long"
        clock.ahead_s += waited_s[-1] + 1
    busy.end(slot, worked_off=True)
    open_period(periods, children, clock)

    assert waited_s == pytest.approx([PATIENCE_S, 2 * PATIENCE_S, 4 * PATIENCE_S], abs=3 * late_s)
    assert periods._patience_s == PATIENCE_S


def test_a_long_task_holds_a_period_up_if_nothing_waits(children, clock, server):
    server.waiting = 0
    poll(children)
    periods = QuietPeriods(children)
    begin(children.rows[1])

    periods.work()
    children.work()
    clock.ahead_s += 100 * PATIENCE_S
    periods.work()

    assert children.quiet and not children.rows[children.exclusive.index].retired


def test_an_isolated_child_that_runs_for_long_puts_a_period_off(children, clock):
    periods = QuietPeriods(children)
    children.process_set.fill(children.isolated[1])
    children.work()
    children.rows[children.isolated[1].index].ready = True

    periods.work()
    clock.ahead_s += PATIENCE_S + 1
    periods.work()

    assert not children.quiet
    assert children.exclusive is None


def test_a_pause_ends_a_period(children, clock):
    periods = QuietPeriods(children)
    open_period(periods, children, clock)

    children.pause()
    periods.work()

    assert (children.quiet, children.exclusive) == (False, None)


def test_a_pool_in_a_quiet_period_is_healthy(children, monkeypatch):
    health = PoolHealth(children)
    for process in children.own[:2]:
        children.rows[process.index].working = True
    health.unhealthy_reason()
    children.begin_quiet()
    health._taken_s -= 100

    assert health.unhealthy_reason() == ""


STARTED = 1_000


def given(verb: str, id_: str = "1", started_at: int = STARTED) -> Instruction:
    return Instruction(id_, verb, started_at, at=2_000, by="ada", reason="why")


def quiet(children: ChildManager) -> list[bool]:
    return [children.rows[process.index].quiet for process in children.running]


def test_each_instruction_is_obeyed_once_and_only_by_the_process_that_is_meant(children):
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


def test_no_quiet_period_begins_or_ends_while_an_operator_keeps_it_quieted(children):
    periods = QuietPeriods(children)
    assert periods.work() < math.inf and quiet(children) == [True, True], "a suspect waits to run alone"

    Instructions(children, started_at=STARTED, stop=lambda: None).obey(given("quiet"))

    assert periods.work() == math.inf and quiet(children) == [True, True]
    assert periods.work() == math.inf


def test_a_child_that_starts_while_it_is_quieted_is_quiet_from_the_start(children):
    Instructions(children, started_at=STARTED, stop=lambda: None).obey(given("quiet"))
    process = children.running[0]

    children._start(process.index)

    assert children.rows[process.index].quiet
