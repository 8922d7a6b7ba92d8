"""Tasks that hang in C, or take too much memory: F05 and F06. They fail, or only their child is killed."""

import threading
import time
from math import inf
from typing import Self

import pytest

from switchyard.broker.interface import facilities
from switchyard.workers.shared.fork import resident_bytes
from tests.chaos.load import JOBS_THAT_FAIL_ONCE, QUEUE, enqueue, let_pass, wait_until_drained
from tests.chaos.pools import RunningPool, begin, buried, restarts, started
from tests.chaos.yard.yards import BRIEF, MB
from tests.processes import wait_for_end
from tests.waiting import wait_for

# A busy machine kills late, and notes late what began. Neighbours start again before a lease of 15 s lapses.
pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(240)]
long = pytest.mark.long
LIMIT_S = 3.0
LIMIT_BYTES = 250 * MB


@pytest.mark.parametrize("how", ["hang", pytest.param("seize", marks=long)])
@pytest.mark.parametrize(
    ("yard", "again_s", "killed_s"),
    [
        ("limited threads", inf, (2.5, inf)),
        pytest.param("limited threads", 0.2, (4.9, 5.5), marks=long),
        pytest.param("limited greenlets", 2.0, (4.9, 5.5), marks=long),
    ],
)
def test_a_task_past_its_hard_limit_is_killed_with_its_child_and_retried_its_neighbours_go_on_elsewhere(
    pools, ledger, yard, again_s, killed_s, how
):
    pool = pools.start("runpools")
    broker, transport = pools.broker, facilities(pools.broker).transport
    neighbours = ["neighbour-1", "neighbour-2"]
    begin(pools, ledger, neighbours, 20_000)  # beyond the moment of the kill

    enqueue(broker, ledger, "guilty", 60_000, how, queue=BRIEF)
    began = started(ledger, "guilty")
    killed_at_s = wait_for_end(began.pid, 60)
    took_s = [started(ledger, job, 2).at_s - killed_at_s for job in neighbours]
    wait_for_end(started(ledger, "guilty", 2).pid, 60)
    wait_for(lambda: transport.stats(BRIEF).dead == 1)
    wait_until_drained(broker)

    over_s = killed_at_s - began.at_s - LIMIT_S
    print(f"limit {LIMIT_S:g} s: killed {over_s:.2f} s after it, neighbours again {max(took_s):.3f} s later")
    letter, found = buried(pools, ledger, "guilty", BRIEF)
    assert (found.duplicated, letter.attempts) == ((), 2)
    assert (letter.reason, letter.exception) == ("time_limit", "HardLimitExceeded")
    assert killed_s[0] <= over_s <= killed_s[1] + 0.1 * pool.start_s
    assert max(took_s) <= max(again_s, pool.start_s if "greenlets" in yard else 0)
    records = facilities(broker).records
    for job in neighbours:
        assert len(ledger.of("started", job)) == 2, "the retry did not kill it again"
        assert records.read(job).attempts == 1, "no attempt was spent"


def test_what_a_task_started_ends_with_it_at_its_hard_limit(pools_on, valkey_url, ledger):
    pools = pools_on("limited threads", valkey_url)
    pool = pools.start("runpools")

    enqueue(pools.broker, ledger, "guilty", 600_000, "delegate", queue=BRIEF)
    sleeper = wait_for(lambda: pool.children().get("sleep 600.0"))
    wait_for_end(started(ledger, "guilty").pid, 60)

    wait_for_end(sleeper, 60)
    wait_for(lambda: facilities(pools.broker).transport.stats(BRIEF).dead == 1)


@pytest.mark.parametrize("how", ["await_spin", pytest.param("await_refuse", marks=long)])
def test_a_coroutine_past_its_hard_limit_is_killed_with_its_child_and_those_that_it_held_up_are_not_to_blame(
    pools_on, valkey_url, ledger, how
):
    pools = pools_on("limited threads", valkey_url)
    pools.start("runpools")
    broker, records = pools.broker, facilities(pools.broker).records
    for job, ms, queue in (("neighbour", 20_000, QUEUE), ("held-up", 1_000, BRIEF)):
        enqueue(broker, ledger, job, ms, "await_sleep", queue=queue)
        started(ledger, job)

    enqueue(broker, ledger, "guilty", 60_000, how, queue=BRIEF)
    for run in (1, 2):
        wait_for_end(started(ledger, "guilty", run).pid, 60)
    wait_for(lambda: facilities(broker).transport.stats(BRIEF).dead == 1)
    wait_until_drained(broker)

    letter, found = buried(pools, ledger, "guilty", BRIEF)
    assert (found.duplicated, letter.reason, letter.exception) == ((), "time_limit", "HardLimitExceeded")
    for job in ("neighbour", "held-up"):
        assert records.read(job).attempts == 1, "no attempt was spent"


@pytest.mark.parametrize("yard", ["limited threads", pytest.param("limited greenlets", marks=long)])
def test_a_task_that_ends_within_5_s_of_its_hard_limit_counts_and_nothing_of_its_child_is_killed(pools, ledger):
    pool = pools.start("runpools")
    broker, records = pools.broker, facilities(pools.broker).records
    enqueue(broker, ledger, "neighbour", 20_000)  # beyond the moment of the kill
    child = started(ledger, "neighbour").pid

    enqueue(broker, ledger, "late", int((LIMIT_S + 2.5) * 1000), "refuse", queue=BRIEF)
    began = started(ledger, "late")
    pool.wait_for_log("over their hard limit, one may take 3 s; it has 5 s to end")
    told_s = time.monotonic()
    wait_for(lambda: "work child 2" in pool.children(), what="another child")
    enqueue(broker, ledger, "next")
    after = started(ledger, "next")
    ended_at_s = wait_for_end(child, 60)
    wait_until_drained(broker)

    print(f"told to end after {told_s - began.at_s:.2f} s of {LIMIT_S:g}, ended after {ended_at_s - began.at_s:.2f}")
    ledger.each_once()
    for job in ("late", "neighbour"):
        assert [entry.pid for phase in ("started", "completed") for entry in ledger.of(phase, job)] == [child, child]
        assert (records.read(job).state, records.read(job).attempts) == ("succeeded", 1)
    assert facilities(broker).transport.stats(BRIEF).dead == 0
    assert after.pid != child, "told to end, it takes nothing more"
    assert ended_at_s > began.at_s + LIMIT_S + 5.5, "the neighbour ended in peace"
    assert told_s < ledger.of("completed", "late")[0].at_s
    assert "killed" not in pool.log()


@long
def test_a_task_that_never_lets_go_of_the_interpreter_keeps_its_lease_within_its_limit(pools, ledger):
    pools.start("runpool", "work")
    enqueue(pools.broker, ledger, "holds", 60_000, "hold")
    began = started(ledger, "holds")

    wait_for(lambda: ledger.of("completed", "holds"), 120)

    wait_until_drained(pools.broker)
    ledger.each_once()
    assert ledger.of("started", "holds") == [began]


def test_a_job_that_fails_while_the_broker_is_away_is_retried_and_nobody_killed_for_its_wait(pools_on, server, ledger):
    pools = pools_on("limited threads", server.url)
    pool = pools.start("runpools")
    job = f"fails-{JOBS_THAT_FAIL_ONCE}"
    enqueue(pools.broker, ledger, job, 1_000, queue=BRIEF)
    began = started(ledger, job)

    server.stop()
    let_pass(LIMIT_S + 6)
    server.cont()

    wait_for(lambda: ledger.of("completed", job))
    wait_until_drained(pools.broker)
    ledger.each_once()
    assert len(ledger.of("started", job)) == 2
    assert began.pid in pool.children().values(), "it could not be moved before the broker was back, and that took time"


class Heaviest:
    """Weighs a pool's children all the time, in a thread; ``bytes`` is what the heaviest came to."""

    def __init__(self, pool: RunningPool) -> None:
        self._pool, self.bytes, self._stop = pool, 0, threading.Event()
        self._thread = threading.Thread(target=self._weigh, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _weigh(self) -> None:
        pids, look_at_s = list[int](), 0.0
        while not self._stop.wait(0.003):
            if time.monotonic() > look_at_s:
                pids, look_at_s = list(self._pool.children().values()), time.monotonic() + 0.1
            self.bytes = max([self.bytes, *map(resident_bytes, pids)])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jobs", [200, pytest.param(1_000, marks=long)])
@pytest.mark.parametrize(
    "yard",
    ["ceiling threads", pytest.param("ceiling processes", marks=long), pytest.param("ceiling greenlets", marks=long)],
)
def test_a_leak_of_5_mb_a_run_never_takes_a_child_over_its_ceiling(pools, ledger, jobs):
    pool = pools.start("runpool", "work")

    with Heaviest(pool) as heaviest:
        for number in range(jobs):
            enqueue(pools.broker, ledger, f"leaks-{number}.", 5, "leak")
        wait_until_drained(pools.broker, 120)

    most = heaviest.bytes
    children = len({entry.pid for entry in ledger.entries() if entry.phase == "completed"})
    print(f"{jobs} jobs keep 5 MB each: {children} children, the heaviest {most / 1e6:.0f} of {LIMIT_BYTES / 1e6:g} MB")
    ledger.each_once()
    assert len(ledger.jobs("started")) == jobs, "none was interrupted"
    assert "killed" not in pool.log()
    assert most <= LIMIT_BYTES


def test_a_task_that_takes_all_memory_at_once_fails_by_itself_where_it_is_alone(pools_on, valkey_url, ledger):
    pools = pools_on("ceiling processes", valkey_url)
    pool = pools.start("runpools")
    transport = facilities(pools.broker).transport

    with Heaviest(pool) as heaviest:
        enqueue(pools.broker, ledger, "glutton", 0, "gobble")
        wait_for(lambda: transport.stats(QUEUE).dead == 1)

    letter, found = buried(pools, ledger, "glutton")
    assert (found.duplicated, letter.reason, letter.exception) == ((), "exhausted", "MemoryError")
    assert "killed" not in pool.log()
    assert heaviest.bytes <= LIMIT_BYTES


# The task takes 10 MB each 20 ms: a supervisor that stands still for a moment finds far more than the ceiling.
@pytest.mark.parametrize(
    ("yard", "most_times"),
    [
        ("ceiling threads", 2.0),
        pytest.param("ceiling threads", 1.1, marks=long),
        pytest.param("ceiling greenlets", 1.1, marks=long),
    ],
)
def test_a_child_that_a_task_takes_over_its_ceiling_is_killed_and_its_neighbours_run_again(pools, ledger, most_times):
    pool = pools.start("runpools")
    begin(pools, ledger, [f"neighbour-{number}." for number in range(3)], 3_000)

    with Heaviest(pool) as heaviest:
        enqueue(pools.broker, ledger, "glutton", 0, "gobble_slowly")
        pool.wait_for_log(r"takes \d+ MB, over its 250 MB; killed")
        wait_until_drained(pools.broker, 60)

    most = heaviest.bytes
    print(f"the heaviest child came to {most / 1e6:.0f} of {LIMIT_BYTES / 1e6:g} MB")
    # Alone it fails by itself, or is killed twice more.
    assert buried(pools, ledger, "glutton")[1].duplicated == ()
    wait_for(lambda: restarts(pools, "work").get("memory"))
    assert most <= most_times * LIMIT_BYTES
