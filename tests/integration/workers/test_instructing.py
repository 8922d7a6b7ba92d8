"""Pools that an operator quiets, lets take work again and stops, and an actor that he ends by a pause and a cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from switchyard.broker.interface import Facilities
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from tests.factories.commands import json_of
from tests.integration.workers.bench.actors import FANNED_OUT, fan_out
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


def cancel() -> int:
    """Cancel all that wait or run, and return how many were hit."""
    number = json_of("jobs", "cancel", "--filter", "actor=fan_out")["bulk_act"]
    BulkRunner().go_on()
    act = BulkAct.objects.get(pk=number)
    assert (act.state, act.error) == ("done", "")
    return act.done


@pytest.mark.django_db(transaction=True)
def test_a_pause_and_a_cancel_end_it_also_in_a_child_that_hangs(bench: Bench, facilities: Facilities) -> None:
    bench.up("runpool", "urgent")
    family = bench.broker.families["urgent"]
    for hangs in (False, True):
        bench.client.delete(FANNED_OUT)
        fan_out.send()  # this process knows it as well
        wait_for(lambda: bench.waiting("urgent") > 100)
        child = int(bench.client.lindex(FANNED_OUT, 0))  # type: ignore[arg-type]
        if hangs:
            os.kill(child, signal.SIGSTOP)

        json_of("actors", "pause", "fan_out", "--reason", "it sends itself")
        hit = cancel()
        if hangs:
            os.kill(child, signal.SIGCONT)
        else:  # the others of the queue go on
            bench.ran("urgent")
        wait_for(lambda: facilities.transport.stats("urgent").live.running == 0)
        ran = bench.client.llen(FANNED_OUT)
        again = cancel()  # what ran meanwhile has sent
        json_of("actors", "resume", "fan_out")
        bench.ran("urgent")

        wait_for(lambda: family.calls.command("HLEN", family.keys.bodies) == 0)
        assert bench.client.llen(FANNED_OUT) == ran
        assert hit > 100 and again <= 8
        assert json_of("actors", "show", "fan_out")["pauses"] == []
