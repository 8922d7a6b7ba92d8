"""A real pool that an operator quiets, lets take work again, and stops."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.integration.workers.conftest import ROOT, Bench
from tests.waiting import wait_for


def instruct(bench: Bench, verb: str, pool: str) -> str:
    """Run the command, which returns once the supervisors have obeyed, and return what it prints."""
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "workers", verb, "--pool", pool, "--reason", "a test"],
        cwd=bench.folder, env=bench.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_quieted_pool_ends_what_runs_takes_nothing_and_goes_on_when_it_may(bench: Bench) -> None:
    parent = bench.up("runpools", "slow")
    running = bench.begun("slow", ms=4_000)
    first = bench.report("slow")

    said = instruct(bench, "quiet", "slow")
    late = [bench.send("slow") for _ in range(5)]
    wait_for(lambda: bench.ended(running))

    assert first is not None and said == f"{first.member}: takes no new work\n"
    report = wait_for(lambda: (found := bench.report("slow")) and not found.busy and found)
    assert (report.state, report.started_at) == ("quieted", first.started_at)
    assert all(child["quiet"] for child in report.children)
    assert not any(bench.started(token) for token in late) and bench.waiting("slow") == 5

    instruct(bench, "resume", "slow")
    wait_for(lambda: all(bench.ended(token) for token in late))

    said = instruct(bench, "stop", "slow")
    assert "stops" in said
    again = wait_for(lambda: (found := bench.report("slow")) and found.state == "up" and found)
    assert again.started_at > first.started_at, "its parent starts it again, once"
    late = [bench.send("slow")]
    wait_for(lambda: bench.ended(late[0]))
    assert bench.report("slow").started_at == again.started_at
    parent.terminate()
    assert parent.wait(60) == 0
