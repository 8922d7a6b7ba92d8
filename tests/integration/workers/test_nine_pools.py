"""A development machine runs all pools of the whole project in little memory."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
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
