"""Children of pools that name CPUs."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.workers.conftest import Bench
from tests.processes import titles_below


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
