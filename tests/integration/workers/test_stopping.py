"""How pools end: drained, cut short, killed; and what is left behind."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.waiting import wait_for


def test_ctrl_c_in_a_terminal_lets_what_runs_end_in_all_pools_takes_no_new_work_and_exits_0(bench: Bench) -> None:
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
def test_a_terminal_that_closes_lets_what_runs_end_although_it_sends_its_signal_twice(
    bench: Bench, command: list[str]
) -> None:
    parent = bench.start(*command)
    bench.wait_for_log("pools: all ready" if command[0] == "runpools" else "pool urgent: ready")
    running = bench.begun("urgent", ms=2_000)

    os.killpg(parent.pid, signal.SIGHUP)
    bench.wait_for_log("pool urgent: draining")
    os.killpg(parent.pid, signal.SIGHUP)

    assert parent.wait(60) == 0
    assert bench.ended(running)


def test_a_second_signal_stops_all_pools_at_once(bench: Bench) -> None:
    parent = bench.up("runpools", "urgent", "slow")
    below = titles_below(parent.pid).values()
    bench.begun("urgent", ms=60_000)
    parent.terminate()
    bench.wait_for_log("pool urgent: draining")

    parent.terminate()

    assert parent.wait(30) == 70
    wait_for(lambda: not any(is_alive(pid) for pid in below))


def test_kill_9_of_the_common_parent_leaves_no_process(bench: Bench) -> None:
    top = bench.up("runpools")
    bench.begun("slow", ms=60_000)
    below = titles_below(top.pid).values()
    assert len(below) == 10

    top.kill()

    wait_for(lambda: not any(is_alive(pid) for pid in below))
