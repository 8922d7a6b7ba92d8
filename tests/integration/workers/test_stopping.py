"""How pools and children end: by a signal, a crash, a lost lease or their age; and what is left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.yard_facts import GROWN_BYTES, FactStore, merged
from switchyard.workers.shared.fork import resident_bytes
from tests.chaos.server import ServerUnderTest
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.bench.yard import ABOVE_BYTES
from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.waiting import wait_for


def test_ctrl_c_in_a_terminal_lets_what_runs_end_in_all_pools_takes_no_new_work_and_exits_0(bench):
    parent = bench.up("runpools", "urgent", "slow")
    running = [bench.send(queue, ms=1_000) for queue in ("urgent", "slow", "slow")]
    wait_for(lambda: all(bench.started(token) for token in running))

    os.killpg(parent.pid, signal.SIGINT)
    bench.wait_for_log("pool slow: draining")
    late = [bench.send("slow") for _ in range(5)]

    assert parent.wait(60) == 0
    assert all(bench.ended(token) for token in running)
    assert not any(bench.started(token) for token in late)
    assert bench.waiting("slow") == 5
    assert bench.report("slow") is None
    assert "pools: all drained" in bench.log()


@pytest.mark.parametrize("command", [["runpools", "urgent", "slow"], ["runpool", "urgent"]])
def test_a_terminal_that_closes_lets_what_runs_end_although_it_signals_twice(bench, command):
    parent = bench.start(*command)
    bench.wait_for_log("pools: all ready" if command[0] == "runpools" else "pool urgent: ready")
    running = bench.begun("urgent", ms=2_000)

    os.killpg(parent.pid, signal.SIGHUP)
    bench.wait_for_log("pool urgent: draining")
    os.killpg(parent.pid, signal.SIGHUP)

    assert parent.wait(60) == 0
    assert bench.ended(running)


def test_a_second_signal_stops_all_pools_at_once(bench):
    parent = bench.up("runpools", "urgent", "slow")
    below = titles_below(parent.pid).values()
    bench.begun("urgent", ms=60_000)
    parent.terminate()
    bench.wait_for_log("pool urgent: draining")

    parent.terminate()

    assert parent.wait(30) == 70
    wait_for(lambda: not any(is_alive(pid) for pid in below))


def test_kill_9_of_the_common_parent_leaves_no_process(bench):
    top = bench.up("runpools")
    bench.begun("slow", ms=60_000)
    below = titles_below(top.pid).values()
    assert len(below) == 10

    top.kill()

    wait_for(lambda: not any(is_alive(pid) for pid in below))


def family(bench: Bench, queue: str) -> QueueOperations:
    return bench.broker.families[queue]


def held(bench: Bench, queue: str) -> list[str]:
    """Return the owner of each leased message."""
    found = family(bench, queue)
    return [owner for owner in found.owners() for _ in found.held(owner)]


def test_a_child_that_lost_its_lease_is_replaced_nothing_is_leased_in_stock_a_drain_leaves_none(bench):
    pools = bench.up("runpools", "urgent", "slow", "--no-history", "--grace", "0.2")
    token = bench.send("urgent", ms=4_000)
    first = wait_for(lambda: bench.started(token))

    family(bench, "urgent").reclaim(first["owner"])

    bench.wait_for_log("child 1 lost its lease")
    wait_for(lambda: len([note for note in bench.notes(STARTED) if note["token"] == token]) == 2)
    assert titles_below(pools.pid)["urgent child 1"] != first["pid"]

    slow = bench.begun("slow", ms=60_000)
    quick = [bench.send("slow", ms=50) for _ in range(10)]
    most = 0
    while not all(bench.ended(each) for each in quick):
        most = max(most, len(held(bench, "slow")))
    assert not bench.ended(slow)
    assert most <= 2, "its pool prefetches nothing"

    wait_for(lambda: bench.ended(token))
    tokens = [bench.send("urgent", ms=60_000) for _ in range(6)]
    wait_for(lambda: len({note["token"] for note in bench.notes(STARTED)} & set(tokens)) == 4)
    started = {bench.ids[note["token"]].encode() for note in bench.notes(STARTED) if note["token"] in tokens}

    pools.terminate()

    assert pools.wait(30) == 0
    found = family(bench, "urgent")
    assert found.owners() == []
    waiting = found.calls.command("LRANGE", found.keys.waiting("live")[1], 0, -1)
    assert set(waiting[:4]) == started
    assert waiting == [bench.ids[each].encode() for each in tokens]


@pytest.mark.parametrize("kind", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_a_child_dying_without_a_server_is_replaced_before_it_is_back(bench, tmp_path, kind):
    with ServerUnderTest(tmp_path / "server") as server:
        away = Bench(server.url, tmp_path)
        pool = away.up("runpool", "urgent")
        token = away.send("urgent", ms=60_000)
        victim = wait_for(lambda: away.started(token))["pid"]

        getattr(server, kind)()
        os.kill(victim, signal.SIGKILL)

        wait_for(lambda: titles_below(pool.pid).get("urgent child 1", victim) != victim)
        if kind == "stop":
            server.cont()
        else:
            server.restart()
        wait_for(lambda: len([note for note in away.notes(STARTED) if note["token"] == token]) == 2)
        away.stop_all()


MB = 1_000_000
ALL_ENDED_S = 80.0  # on a busy machine; they take 4 s


def test_children_are_replaced_by_count_and_nothing_runs_twice_or_waits(bench):
    pool = bench.up("runpool", "urgent", yard="aging")

    tokens = [bench.send("urgent", ms=10) for _ in range(800)]
    most, give_up_s = 0, time.monotonic() + ALL_ENDED_S
    while (count := bench.client.llen(ENDED)) < 800:
        most = max(most, len(titles_below(pool.pid)))
        # A task that failed once would stay in the retry lane, which no pool of this test serves.
        assert time.monotonic() < give_up_s, f"{count} ended; {bench.unusual_log()}"

    ends = bench.notes(ENDED)
    assert sorted(note["token"] for note in ends) == sorted(tokens)
    assert len({note["pid"] for note in ends}) >= 3
    assert most <= 3
    report = wait_for(lambda: (found := bench.report("urgent")) and found.restarts and found)
    assert set(report.restarts) == {"recycled"}


def test_a_child_that_holds_too_much_is_replaced_and_what_it_runs_ends_in_peace(bench):
    pool = bench.up("runpool", "urgent", "--grace", "0.2", yard="growing")
    child = titles_below(pool.pid)["urgent child 1"]
    heaviest = resident_bytes(child)
    long = bench.begun("urgent", ms=12_000)
    tokens = [long]

    while len(titles_below(pool.pid)) < 2:
        assert heaviest < ABOVE_BYTES + 150 * MB, "it is not replaced"
        tokens.append(bench.send("urgent", ms=30, how="leak"))  # it is weighed ten times a second
        wait_for(lambda: bench.ended(tokens[-1]))
        heaviest = max(heaviest, resident_bytes(child))
    assert not bench.ended(long)
    bench.wait_for_log(f"(pid {child}) is replaced")
    last = bench.send("urgent")

    ended = wait_for(lambda: bench.ended(last))
    print(f"replaced with {heaviest / MB:.0f} MB, above {ABOVE_BYTES / MB:.0f}, after {len(tokens)} tasks")
    assert heaviest > ABOVE_BYTES
    assert bench.ended(long)["pid"] == child  # type: ignore[index]
    assert ended["pid"] != child
    assert sorted(note["token"] for note in bench.notes(STARTED)) == sorted([*tokens, last])
    assert sorted(note["token"] for note in bench.notes(ENDED)) == sorted([*tokens, last])
    report = wait_for(lambda: (found := bench.report("urgent")) and found.restarts and found)
    assert report.restarts == {"recycled_memory": 1}
    pool.terminate()
    assert pool.wait(60) == 0
    store = FactStore(RedisCalls(bench.client), Keys())
    found = merged(of.get("a:urgent_job", {}) for _, of in store.recent(store.server_ms()))
    assert found[GROWN_BYTES] >= len(tokens) // 2 * MB, "what it grew by is put down to its actor"


@pytest.mark.long
def test_a_drain_gives_a_child_that_is_replaced_its_grace_and_no_more(bench):
    pool = bench.up("runpool", "urgent", "--grace", "0.2", yard="aging")
    bench.begun("urgent", ms=60_000)
    children = set(titles_below(pool.pid))
    for _ in range(200):
        bench.send("urgent", ms=5)
    wait_for(lambda: bench.client.llen(ENDED) == 200)
    wait_for(lambda: set(titles_below(pool.pid)) - children)

    pool.terminate()

    assert pool.wait(30) == 0
    assert bench.waiting("urgent") == 1


def test_a_copy_of_a_greenlet_runs_no_other_greenlet_and_ends_with_its_own():
    program = [sys.executable, "-m", "tests.integration.workers.child.forking_greenlets"]
    whole = os.environ | {"PYTHONUNBUFFERED": ""}  # else a line's end is a write of its own, and copies write between
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True, env=whole)
    lines = sorted(done.stdout.splitlines())
    assert lines == ["joined", *["slept in a copy"] * 2, *["woke in the original"] * 2], done.stderr


def test_a_child_for_what_runs_alone_ends_when_there_is_none_and_what_a_task_forks_is_no_child(bench):
    pools = bench.up("runpools", "urgent", "slow", "webhook", "--no-history")
    token = bench.send("urgent", ms=3_000)
    os.kill(wait_for(lambda: bench.started(token))["pid"], signal.SIGKILL)
    alone = wait_for(lambda: bench.ended(token))["pid"]
    assert titles_below(pools.pid)["urgent alone 1"] == alone
    wait_for(lambda: "urgent alone 1" not in titles_below(pools.pid))

    # The first would go on in the copies of the last, and end there once more.
    tokens = [bench.send("webhook", ms=1_500)]
    tokens += [bench.send(queue, ms=1_000, how="fork_copies") for queue in ("urgent", "slow", "webhook")]

    wait_for(lambda: {note["token"] for note in bench.notes(ENDED)} >= set(tokens))
    assert sorted(note["token"] for note in bench.notes(ENDED)) == sorted([token, *tokens])
