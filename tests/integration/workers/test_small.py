"""``run``: one pool for all queues in the order of their promise, schedules and history in one tree."""

from __future__ import annotations

import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

from switchyard.broker.keys import Keys
from switchyard.long_running import HISTORY_WRITER, SCHEDULER
from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.waiting import wait_for

HELD_MS = 10_000
HEAP_BYTES = 64 * 2**20


def start(bench: Bench, log: str) -> subprocess.Popen[bytes]:
    process = bench.start("switchyard", "run", yard="small form", log=log)
    bench.wait_for_log("pool small: ready (1 × 4 threads)", log=log)
    return process


def heaps(pid: int) -> int:
    """Return the number of heaps that glibc made for threads: each reserves 64 MiB, and uses the beginning."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    spans = [[*(int(end, 16) for end in line[0].split("-")), line[1]] for line in lines]
    return sum(
        used[2] == "rw-p" and rest[2] == "---p" and rest[1] == used[0] + HEAP_BYTES for used, rest in pairwise(spans)
    )


def test_a_small_yard_keeps_its_promises_and_loses_nothing_when_all_of_it_is_killed(bench: Bench) -> None:
    run = start(bench, "first")
    wait_for(lambda: set(titles_below(run.pid)) == {"small child 1", "schedules and history"})
    wait_for(lambda: all(bench.client.exists(Keys().lock(name)) for name in (SCHEDULER, HISTORY_WRITER)))

    held = [bench.send("slow", ms=HELD_MS) for _ in range(3)]
    wait_for(lambda: all(bench.started(token) for token in held))
    waiting = [bench.send(queue, ms=10) for queue in ("webhook", "slow")]
    urgent = [bench.send("urgent", ms=10) for _ in range(3)]
    wait_for(lambda: all(bench.ended(token) for token in urgent))
    assert not any(bench.ended(token) for token in held)
    assert not any(bench.started(token) for token in waiting)

    below = titles_below(run.pid)
    assert all(heaps(pid) <= 2 for pid in below.values())
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, below.values())))
    second = start(bench, "second")
    wait_for(lambda: all(bench.ended(token) for token in (*held, *waiting)))

    beside = titles_below(second.pid)["schedules and history"]
    for pid in (second.pid, beside):  # as Ctrl-C in a terminal does
        os.kill(pid, signal.SIGINT)
    assert second.wait(60) == 0
    assert f"schedules and history (pid {beside}) exited" not in bench.log("second")
    assert not bench.client.exists(Keys().lock(SCHEDULER))


def test_run_refuses_a_yard_of_pools_and_names_the_setting(bench: Bench) -> None:
    assert bench.start("switchyard", "run").wait(60) == 78

    assert "SWITCHYARD_SMALL: is not set" in bench.log()
    assert "3 or more, in every process, the web too" in bench.log()
