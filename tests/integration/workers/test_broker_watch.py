"""Pools on a server that becomes unsafe, loses its keyspace, or is unsafe from the start."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.broker.errors import BrokerUnsafe
from switchyard.broker.keys import Keys
from switchyard.embedded.server import EmbeddedServer
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench").mkdir()
    with EmbeddedServer(tmp_path / "valkey") as server:
        bench = Bench(server.url, tmp_path / "bench")
        yield bench
        bench.stop_all()


def test_no_pool_starts_on_a_server_with_an_evicting_policy(own: Bench) -> None:
    own.client.config_set("maxmemory-policy", "allkeys-lru")  # all of them: test_broker_checks.py

    process = own.start("runpool", "urgent")

    assert process.wait(60) == 78
    [line] = [line for line in own.log().splitlines() if "refused to start" in line]
    assert "allkeys-lru" in line and "CONFIG SET maxmemory-policy noeviction" in line
    assert own.client.dbsize() == 0


@pytest.mark.parametrize("within_s", [60.0, pytest.param(15.0, marks=pytest.mark.long)])
def test_an_evicting_policy_stops_enqueuing_within_15_s_and_an_emptied_keyspace_pauses_until_it_is_accepted(
    own: Bench, within_s: float
) -> None:
    pools = own.up("runpools", "urgent", "slow", "--no-history")
    own.ran("urgent")

    own.client.config_set("maxmemory-policy", "allkeys-lru")
    took_s = refused_after_s(own)
    own.client.config_set("maxmemory-policy", "noeviction")
    print(f"enqueuing stopped {took_s:.1f} s after the policy was set")
    assert took_s < within_s
    second = wait_for(lambda: accepted(own), within_s, what="enqueuing goes on")
    wait_for(lambda: own.ended(second))

    running = own.begun("slow", ms=8_000)
    own.client.flushdb()
    flushed_s = time.monotonic()
    own.wait_for_log("pool urgent: paused, it fetches nothing", within_s)
    print(f"noticed {time.monotonic() - flushed_s:.1f} s after FLUSHDB")
    report = wait_for(lambda: (found := own.report("urgent")) and not found.children and found)
    token = own.send("urgent")
    assert report.state == "paused"
    assert own.waiting("urgent") == 1
    assert not own.client.exists(Keys().generation())
    wait_for(lambda: own.ended(running), what="a job that ran may end")

    accept = own.start("broker", "accept", log="accept")
    assert accept.wait(60) == 0
    wait_for(lambda: own.ended(token), within_s, what="the waiting job runs")
    assert own.log().count("pool urgent: paused, it fetches nothing") == 1
    pools.send_signal(signal.SIGTERM)
    assert pools.wait(60) == 0


def refused_after_s(bench: Bench) -> float:
    started_s = time.monotonic()
    wait_for(lambda: accepted(bench) is None, what="enqueuing is refused")
    return time.monotonic() - started_s


def accepted(bench: Bench) -> str | None:
    try:
        return bench.send("urgent")
    except BrokerUnsafe:
        return None
