"""Children, supervisors and whole pools that are killed, or killed by a message: F01, F02, F07, F11 and F73."""

import os
import random
import re
import signal
import statistics
import time
from functools import partial
from itertools import pairwise
from math import inf

import psutil
import pytest
import urllib3
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from tests.chaos.ledger import Ledger
from tests.chaos.load import FIRST, QUEUE, enqueue, let_pass, load, wait_until_drained
from tests.chaos.pools import (
    BRIEF_LEASES,
    USUAL,
    Pools,
    RunningPool,
    begin,
    buried,
    fell_until_buried,
    kill_five_times,
    report_of,
    restarts,
    started,
)
from tests.processes import is_alive
from tests.waiting import wait_for
from tests.ways import CANARY

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(600)]
long = pytest.mark.long
EVERY_S = 2.0
SLOTS = 4  # of a child: the job that each has just ended may run again


# The speed of a machine with other work changes between the two rates. If jobs waited for the lease of what crashed,
# none would end for 15 s.
@pytest.mark.parametrize(
    ("yard", "good", "share", "gap_s"),
    [
        ("threads", 400, 0.05, inf),
        pytest.param("processes", 200, 0.05, inf, marks=long),
        pytest.param("greenlets", 400, 0.05, inf, marks=long),
        pytest.param("threads", 1_000, 0.7, 5, marks=long),
        pytest.param("processes", 1_000, 0.7, 5, marks=long),
        pytest.param("greenlets", 1_000, 0.7, 5, marks=long),
    ],
)
def test_a_poison_message_dies_after_three_crashes_and_the_others_go_on(pools, ledger, good, share, gap_s):
    pool = pools.start("runpool", "work")
    broker, transport = pools.broker, facilities(pools.broker).transport
    normal_per_s, _ = rate_and_gap(broker, ledger, "normal", good)

    meanwhile_per_s, longest_gap_s = rate_and_gap(broker, ledger, "meanwhile", good, pill_after=good // 3)

    wait_for(lambda: transport.stats(QUEUE).dead == 1)
    wait_until_drained(broker)
    crashes = ledger.of("started", "pill")
    letter, found = buried(pools, ledger, "pill")
    within_s = crashes[-1].at_s - crashes[0].at_s
    print(
        f"{good} good jobs: {normal_per_s:.0f}/s without, {meanwhile_per_s:.0f}/s beside a poison message "
        f"({meanwhile_per_s / normal_per_s:.0%}), none ended for {longest_gap_s:.2f} s; "
        f"{len(crashes)} crashes within {within_s:.2f} s"
    )
    assert len(found.duplicated) <= 2 * 3, "of what has just ended when its child dies, two a death may run again"
    assert len(crashes) == 3
    assert letter.reason == "poison"
    assert re.search(r"killed by SIGSEGV in .* ways.py:\d+ crash .*, pid \d+, at most \d+ MB", letter.error)
    assert "Actor: chaos_job" in letter.traceback
    assert re.search(r"Fingerprint of its arguments: [0-9a-f]{16}\n", letter.traceback)
    assert "about to crash, api_key=[redacted]" in letter.traceback
    assert CANARY not in str(letter)
    assert pool.log().count("killed by SIGSEGV") >= 3
    assert meanwhile_per_s >= share * normal_per_s
    assert longest_gap_s <= gap_s


# Exit codes say nothing about an end: a task can end its process with any, or have it drained by a signal to itself.
@pytest.mark.parametrize(
    ("yard", "how"),
    [
        ("threads", "vanish"),
        pytest.param("greenlets", "vanish", marks=long),
        ("threads", "end_itself"),
        pytest.param("threads", "vanish_early", marks=long),
        *(pytest.param("processes", how, marks=long) for how in ("vanish", "vanish_early", "end_itself")),
        *(pytest.param("greenlets", how, marks=long) for how in ("vanish_early", "end_itself")),
    ],
)
def test_an_end_that_looks_like_a_drain_is_a_crash_of_what_ran(pools, ledger, how):
    pools.start("runpool", "work", "--grace", "1")
    broker, transport = pools.broker, facilities(pools.broker).transport
    enqueue(broker, ledger, "pill", 100, how)
    for number in range(20):
        enqueue(broker, ledger, f"beside-{number}.", 20)

    wait_for(lambda: transport.stats(QUEUE).dead == 1, 120, what="the pill is a dead letter")
    wait_until_drained(broker)

    letter, _ = buried(pools, ledger, "pill")
    assert letter.reason == "poison"
    assert len(ledger.of("started", "pill")) == 3


# Where a connection is open its failure is answered, and its policy decides; where none is, it is a suspect.
@pytest.mark.parametrize("yard", ["threads", *(pytest.param(each, marks=long) for each in ("processes", "greenlets"))])
def test_a_task_that_leaves_its_process_no_descriptor_costs_no_other(pools, ledger):
    pool = pools.start("runpool", "work", "--grace", "1")
    broker, transport = pools.broker, facilities(pools.broker).transport
    others = {f"beside-{number}." for number in range(20)}
    enqueue(broker, ledger, "pill", 100, "exhaust")
    for job in sorted(others):
        enqueue(broker, ledger, job, 20)

    def is_over() -> bool:
        stats = transport.stats(QUEUE)
        return stats.dead + stats.retry.waiting + stats.retry.scheduled == 1

    wait_for(is_over, 120, what="the pill is a dead letter, or waits for its retry, whose pool does not run")
    wait_for(lambda: others <= set(ledger.jobs("completed")), 120, what="all others done")

    assert {letter.id for letter in transport.dead_letters(QUEUE).items} <= {"pill"}
    wait_for(lambda: "no file descriptor left; it is replaced" in pool.log(), what="the child is replaced")


def rate_and_gap(broker: Broker, ledger: Ledger, name: str, good: int, pill_after: int = -1) -> tuple[float, float]:
    """Have so many good jobs of 20 ms done, a poison message among them.

    Returns:
        How many were a second, and the longest time without the end of one.
    """
    for number in range(good):
        enqueue(broker, ledger, f"{name}-{number}.", 20)
        if number == pill_after:
            enqueue(broker, ledger, "pill", 20, "crash")
    jobs = {f"{name}-{number}." for number in range(good)}
    wait_for(lambda: jobs <= set(ledger.jobs("completed")), 120, what=f"{good} good jobs done")
    ends = sorted(entry.at_s for entry in ledger.entries() if entry.phase == "completed" and entry.job in jobs)
    starts = [entry.at_s for entry in ledger.entries() if entry.phase == "started" and entry.job in jobs]
    return good / (max(ends) - min(starts)), max(later - at for at, later in pairwise(ends))


# How soon is printed: a lease lasts 15 s, and what waited for its end would tell there.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=long)])
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=long)])
def test_what_a_killed_child_ran_starts_again_at_once_and_no_sibling_stops(pools, ledger, kills):
    pool = pools.start("runpool", "work")
    chosen = random.Random(11)
    killed: dict[int, float] = {}
    back_s: list[float] = []

    # Ten of the sixteen slots run at any time, so that a kill meets some.
    with load(pools.broker, ledger, per_s=200, ms=50, plain=True) as producers:
        began_s = time.monotonic()
        for number in range(1, kills + 1):
            let_pass(max(began_s + EVERY_S * number - time.monotonic(), 0))
            victim = chosen.choice(sorted(workers(pool)))
            killed[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(workers(pool) - set(killed)) == 4)
            back_s.append(time.monotonic() - killed[victim])
        let_pass(EVERY_S)
        per_s = producers.accepted_count / (time.monotonic() - began_s)
        producers.finish(0)

    again_s = sorted(seconds_until_again(ledger, killed))
    interrupted = siblings_interrupted(ledger, set(killed))
    found = ledger.account()
    print(
        f"{kills} kills under {per_s:.0f} jobs/s: {len(again_s)} jobs started again after "
        f"{statistics.median(again_s):.3f} s at the median, {again_s[-1]:.3f} s at worst; "
        f"{len(found.duplicated)} completed twice, {interrupted} of siblings interrupted, "
        f"children back after {max(back_s):.2f} s at the latest"
    )
    assert (found.lost, found.unexpected, interrupted) == ((), (), 0)
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    wait_for(lambda: restarts(pools, "work") == {"SIGKILL": kills})
    crashed = report_of(pools, "work").crashed
    assert len(crashed) == 3 and crashed == sorted(crashed)
    assert len(found.duplicated) <= kills * SLOTS


def workers(pool: RunningPool) -> set[int]:
    return {pid for title, pid in pool.children().items() if title.startswith("work child")}


def seconds_until_again(ledger: Ledger, killed: dict[int, float]) -> list[float]:
    took_s, running = list[float](), dict[str, int]()
    for entry in ledger.entries():
        if entry.phase == "started":
            if entry.job in running and running[entry.job] != entry.pid:
                took_s.append(entry.at_s - killed[running[entry.job]])
            running[entry.job] = entry.pid
        elif entry.phase == "completed":
            running.pop(entry.job, None)
    return took_s


def siblings_interrupted(ledger: Ledger, killed: set[int]) -> int:
    began = {(entry.job, entry.pid) for entry in ledger.entries() if entry.phase == "started"}
    ended = {(entry.job, entry.pid) for entry in ledger.entries() if entry.phase == "completed"}
    return sum(pid not in killed for _, pid in began - ended)


# With 0.1 s doubled each time seven starts fall into the first 10 s, and ten into the first minute. A loop without a
# pause takes most of a core.
@pytest.mark.parametrize(("watched_s", "most", "most_cpu"), [(10, 7, inf), pytest.param(60, 10, 0.05, marks=long)])
@pytest.mark.parametrize(
    ("yard", "settings"),
    [
        pytest.param("one byte", "settings", id="killed"),
        pytest.param("greenlet", "broken_settings", marks=long, id="bad import"),
    ],
)
def test_a_crash_loop_costs_next_to_nothing_and_the_probe_says_so(
    pools_on, valkey_url, ledger, yard, settings, watched_s, most, most_cpu
):
    pools = pools_on(yard, valkey_url)
    enqueue(pools.broker, ledger, "waits")
    pool = pools.start("runpool", "work", settings=f"tests.chaos.yard.{settings}", ready=False)
    pool.wait_for_log("it is replaced")  # as long as a start may take
    process = psutil.Process(pool.pid)
    began_s, before = time.monotonic(), process.cpu_times()

    let_pass(watched_s)
    after, took_s = process.cpu_times(), time.monotonic() - began_s
    starts = pool.log().count("it is replaced")
    cpu = ((after.user + after.system) - (before.user + before.system)) / took_s

    children = (after.children_user + after.children_system - before.children_user - before.children_system) / took_s
    print(f"{starts} starts in {watched_s:g} s; of a core {cpu:.1%} for the supervisor, {children:.1%} for children")
    assert starts <= most
    assert cpu < most_cpu
    assert pool.process.poll() is None
    assert health(pools) == (503, "no child works\n")
    assert not ledger.jobs("started")

    pool.process.terminate()
    assert pool.process.wait(60) == 0
    pools_on("threads", valkey_url).start("runpool", "work")
    wait_for(lambda: ledger.jobs("completed") == ["waits"])


def health(pools: Pools) -> tuple[int, str]:
    port = report_of(pools, "work").metrics_port
    answer = urllib3.request("GET", f"http://127.0.0.1:{port}/health", timeout=30, retries=False)
    return answer.status, answer.data.decode()


@pytest.mark.parametrize(
    ("yard", "ms", "neighbours", "settings"),
    [
        pytest.param("one slot", 200, 20, BRIEF_LEASES, marks=long),
        ("many greenlets", 200, 200, BRIEF_LEASES),
        pytest.param("one slot", 0, 200, BRIEF_LEASES, marks=long),
        pytest.param("many greenlets", 0, 200, BRIEF_LEASES, marks=long),
        pytest.param("one slot", 2_000, 200, USUAL, marks=long),
        pytest.param("many greenlets", 2_000, 1_000, USUAL, marks=long),
        pytest.param("threads", 0, 1_000, USUAL, marks=long),
    ],
)
def test_a_message_that_fells_its_container_dies_after_six_rounds_and_no_neighbour_is_blamed(
    pools, ledger, ms, neighbours, settings
):
    fell_until_buried(
        pools, ledger, ms=ms, neighbours=neighbours, settings=settings,
        wait_until_done=partial(wait_until_drained, pools.broker, 60),
    )  # fmt: skip


@long
@pytest.mark.parametrize(
    ("yard", "jobs", "ms", "settings"),
    [
        ("many greenlets", 300, 100, BRIEF_LEASES),
        ("many greenlets", 1_000, 150, USUAL),
        ("one slot", 1_000, 100, USUAL),
        ("threads", 1_000, 1_000, USUAL),
    ],
)
def test_a_host_that_is_killed_five_times_blames_no_message(pools, ledger, jobs, ms, settings):
    kill_five_times(
        pools, ledger, jobs=jobs, ms=ms, settings=settings,
        wait_until_done=partial(wait_until_drained, pools.broker, 400),
    )  # fmt: skip
    assert pools.broker.client.hlen(pools.broker.families[QUEUE].keys.notes) == 0


@pytest.mark.parametrize(
    ("yard", "most_twice"),
    [("threads", 16), pytest.param("threads", 2, marks=long), pytest.param("greenlets", 2, marks=long)],
)
def test_what_a_killed_supervisors_children_ran_starts_again_under_the_next(pools, ledger, most_twice):
    first = pools.start("runpool", "work")
    jobs = [f"long-{number}." for number in range(4)]
    begin(pools, ledger, jobs, 60_000, FIRST)
    below = first.children().values()

    with load(pools.broker, ledger, per_s=100, ms=20, plain=True) as producers:
        producers.wait_for_accepted(50)
        killed_s = time.monotonic()
        first.process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in below))
        gone_s = time.monotonic() - killed_s
        pools.start("runpool", "work")
        ready_s = time.monotonic() - killed_s
        producers.stop()
    again_s = [started(ledger, job, 2, 120).at_s - killed_s for job in jobs]
    wait_until_drained(pools.broker)

    print(
        f"no process left after {gone_s:.2f} s, the next pool ready after {ready_s:.1f} s, "
        f"started again after {min(again_s):.1f} to {max(again_s):.1f} s"
    )
    assert len(ledger.none_lost().duplicated) <= most_twice
