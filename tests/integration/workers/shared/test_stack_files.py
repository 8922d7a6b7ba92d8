"""Stacks of children, on a signal and after a crash."""

from __future__ import annotations

import contextlib
import re
import signal
import uuid
from pathlib import Path

import pytest

from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("urgent", "seize"),
        ("webhook", "seize"),
        pytest.param("urgent", "hang", marks=pytest.mark.long),
        pytest.param("webhook", "sleep", marks=pytest.mark.long),
    ],
)
def test_a_signal_and_a_request_show_where_every_child_stands_even_while_c_holds_the_interpreter(
    bench: Bench, pool: str, how: str
) -> None:
    supervisor = bench.up("runpools", pool, "--no-history")
    token = bench.send(pool, ms=30_000, how=how)
    pid = wait_for(lambda: bench.started(token))["pid"]
    report = wait_for(lambda: bench.report(pool))

    shown = bench.folder / "stacks" / f"{pool}-{pid}.txt"
    where = "actors.py" if how == "sleep" else "in lock_twice"

    def is_shown() -> bool:
        supervisor.send_signal(signal.SIGUSR1)  # again, until the task is where it stays; no flood, that starves it
        with contextlib.suppress(AssertionError):
            return wait_for(lambda: any(where in path.read_text() for path in written()), 1)
        return False

    def written() -> list[Path]:
        # Its child is replaced once it has passed the hard limit, and the task runs again in another one.
        return list(shown.parent.glob(f"{pool}-*.txt"))

    def frames_there() -> list[str]:
        request = uuid.uuid4().hex
        bench.reports.ask_for_stacks(report.member, request)
        [child] = wait_for(lambda: bench.reports.read_stacks(request))
        assert child.pid == pid
        frames = [frame for stack in child.stacks for frame in stack.frames]
        return frames if any(where.removeprefix("in ") in frame for frame in frames) else []

    frames = wait_for(frames_there)
    try:
        wait_for(is_shown, 60, what=f"{where} in {shown}")
    except AssertionError:
        print(*(f"{path}\n{path.read_text()[-2_000:]}" for path in written()), bench.log(), sep="\n")
        raise
    assert [frame for frame in frames if not re.fullmatch(r"[^:]+:\d+ [\w.<>]+", frame)] == []
    wait_for(lambda: str(shown) in bench.log())
    assert supervisor.poll() is None


@pytest.mark.long
def test_one_signal_to_the_common_parent_reaches_all_pools_and_ends_none(bench: Bench) -> None:
    parent = bench.up("runpools", "urgent", "slow")

    parent.send_signal(signal.SIGUSR1)

    wait_for(lambda: sum(bool(path.read_text()) for path in (bench.folder / "stacks").iterdir()) == 3)
    assert parent.poll() is None


def test_a_crash_says_where_it_was_and_leaves_no_file(bench: Bench) -> None:
    bench.up("runpool", "urgent")
    token = bench.send("urgent", ms=50, how="crash")
    pid = wait_for(lambda: bench.started(token))["pid"]

    bench.wait_for_log("killed by SIGSEGV in ")

    assert "actors.py" in bench.log()
    assert "crash" in bench.log()
    wait_for(lambda: not (bench.folder / "stacks" / f"urgent-{pid}.txt").exists())
