"""Pools on one machine: nine in little memory, their parents and CPUs; an actor is measured as a page says."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

MOST_BYTES = 400_000_000


@pytest.mark.long
def test_nine_pools_take_less_than_400_mb(bench: Bench) -> None:
    parent = bench.up("runpools", "--no-history", settings="nine_settings")
    members = [parent.pid, *titles_below(parent.pid).values()]
    used_bytes = sum(psutil.Process(pid).memory_full_info().pss for pid in members)

    parent.send_signal(signal.SIGTERM)

    assert parent.wait(60) == 0
    assert len(members) == 21
    assert used_bytes < MOST_BYTES


def test_gevent_pools_share_a_parent_that_is_started_again_when_it_dies(bench: Bench) -> None:
    parent = bench.up("runpools", "webhook", "webhook-retry", "--no-history", settings="nine_settings")
    before = titles_below(parent.pid)
    assert set(before) == {
        "greenlet pools", "pool webhook", "pool webhook-retry", "webhook child 1", "webhook-retry child 1",
    }  # fmt: skip

    os.kill(before["greenlet pools"], signal.SIGKILL)

    wait_for(lambda: not any(is_alive(pid) for pid in before.values()))
    bench.wait_for_log("pool webhook, webhook-retry: its parent (pid")
    wait_for(lambda: set(titles_below(parent.pid)) == set(before))
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0


@pytest.mark.parametrize(
    "stopped",
    ["greenlet pools", *(pytest.param(name, marks=pytest.mark.long) for name in ("pool urgent", "pool webhook"))],
)
def test_a_supervisor_that_is_stopped_is_replaced_with_its_children(bench: Bench, stopped: str) -> None:
    parent = bench.up("runpools", "urgent", "webhook", "webhook-retry", "--no-history", settings="hung_settings")
    before = titles_below(parent.pid)

    os.kill(before[stopped], signal.SIGSTOP)

    bench.wait_for_log("; it is started again")
    wait_for(lambda: (now := titles_below(parent.pid)).keys() == before.keys() and now[stopped] != before[stopped])
    assert not is_alive(before[stopped])
    assert (titles_below(parent.pid)["pool urgent"] == before["pool urgent"]) is (stopped != "pool urgent")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0


def test_every_thread_of_a_pinned_child_runs_on_its_cpus_and_nobody_else_does(bench: Bench) -> None:
    ours = os.sched_getaffinity(0)
    parent = bench.up("runpools", yard="pinned")

    titles = titles_below(parent.pid)

    pinned = [pid for title, pid in titles.items() if "child" in title and not title.startswith("retries")]
    assert len(pinned) == 4
    assert {frozenset(cpus) for pid in pinned for cpus in threads_cpus(pid)} == {frozenset({max(ours)})}
    others = {parent.pid, *titles.values()} - set(pinned)
    assert {frozenset(cpus) for pid in others for cpus in threads_cpus(pid)} == {frozenset(ours)}


def threads_cpus(pid: int) -> list[set[int]]:
    """Return the CPUs on which each thread of a process may run."""
    return [os.sched_getaffinity(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()]


PAGE = "docs/how-to/choose-a-pool.md"


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench: Bench) -> None:
    [shown] = code_blocks(read(PAGE), "sh")
    assert shown.split()[:2] == ["bin/bench", "plateau"]

    command = bench.start_module(
        "benchmarks", "plateau", "urgent_job", '["measured", 20]', "--tasks", "10", "--most", "2"
    )

    assert command.wait(120) == 0, bench.log()
    rows = [line.split() for line in bench.log().splitlines() if " tasks/s " in line]
    assert [(row[0], row[-1]) for row in rows] == [("1", "0"), ("2", "0")]
    assert "plateau: urgent_job gains up to " in bench.log()
