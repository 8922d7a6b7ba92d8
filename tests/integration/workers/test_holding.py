"""Leases that a supervisor holds for its children: what they are good for, and what becomes of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from switchyard.broker.queue.operations import QueueOperations
from tests.chaos.server import ServerUnderTest
from tests.integration.workers.bench.actors import STARTED
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for


def family(bench: Bench, queue: str) -> QueueOperations:
    return bench.broker.families[queue]


def held(bench: Bench, queue: str) -> list[str]:
    """Return the owner of each leased message."""
    found = family(bench, queue)
    return [owner for owner in found.owners() for _ in found.held(owner)]


def test_a_child_that_lost_its_lease_is_replaced_nothing_is_leased_in_stock_and_a_drain_leaves_no_lease(
    bench: Bench,
) -> None:
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
def test_a_child_that_dies_while_the_server_is_away_is_replaced_before_it_is_back(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
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
