"""Children that crash from their tasks: suspected messages, and the other messages of the child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.integration.workers.bench.actors import ENDED
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for


def test_a_copy_of_a_greenlet_runs_no_other_greenlet_and_ends_with_its_own() -> None:
    program = [sys.executable, "-m", "tests.integration.workers.child.forking_greenlets"]
    whole = os.environ | {"PYTHONUNBUFFERED": ""}  # else a line's end is a write of its own, and copies write between
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True, env=whole)
    lines = sorted(done.stdout.splitlines())
    assert lines == ["joined", *["slept in a copy"] * 2, *["woke in the original"] * 2], done.stderr


def test_a_child_for_what_runs_alone_ends_when_there_is_none_and_what_a_task_forks_is_no_child(bench: Bench) -> None:
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
