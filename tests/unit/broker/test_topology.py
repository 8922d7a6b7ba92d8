"""A yard lists its lanes and the pools that serve them, and refuses invalid declarations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from project.topology import YARD
from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.keys import Keys
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

ROOT = Path(__file__).resolve().parents[3]


def test_every_lane_of_this_yard_is_served_by_exactly_one_pool() -> None:
    assert {lane: len(YARD.pools_of(lane)) for lane in YARD.lanes} == dict.fromkeys(YARD.lanes, 1)


def test_no_pool_serves_a_dead_list() -> None:
    assert all(not YARD.pools_of(queue.dead_list) for queue in YARD.queues)
    assert not any(lane.endswith("-dead") for lane in YARD.lanes)


def test_retry_lanes_that_no_pool_names_are_shared() -> None:
    assert [pool.name for pool in YARD.pools_of("webhook-retry")] == ["webhook-retry"]
    assert [pool.name for pool in YARD.pools_of("images-retry")] == ["images-retry"]
    assert [pool.name for pool in YARD.pools_of("slow-retry")] == ["retries"]
    assert "webhook-retry" not in YARD.served_by(YARD.pool("retries"))


QUEUE: dict[str, Any] = {"name": "work", "objective_ms": None, "soft_limit_ms": 1_000, "hard_limit_ms": 2_000}
POOL: dict[str, Any] = {"name": "work", "kind": "threads", "queues": ("work",), "processes": 1, "slots": 1}
WORK = Queue(**QUEUE)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("max_retries", "5"), ("max_retries", -1), ("max_retries", True), ("max_retries", None), ("base_ms", -1)),
        *(("base_ms", 1.5), ("cap_ms", 999), ("cap_ms", "300000"), ("cap_ms", 10**15), ("backoff", 5)),
        *(("backoff", lambda: 5), ("backoff", lambda retry, error: 5)),
    ],
)
def test_a_retry_policy_that_would_lose_retries_is_refused_when_it_is_declared(option: str, value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=rf"^retry policy: {option} is .*; write "):
        RetryPolicy(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("objective_ms", 0), ("objective_ms", "80"), ("done_objective_ms", 0), ("done_objective_ms", 1.5)),
        *(("soft_limit_ms", 0), ("soft_limit_ms", None), ("hard_limit_ms", 1_000), ("hard_limit_ms", 2_000.5)),
        *(("retry", {"max_retries": 3}), ("retry", 3), ("max_depth", 0), ("max_depth", -1), ("max_depth", True)),
    ],
)
def test_an_option_of_a_queue_that_cannot_be_used_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=rf"^queue work: {option} is .*; write "):
        Queue(**QUEUE | {option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("kind", "fibers"), ("kind", ["threads"]), ("queues", "work"), ("queues", ["work"])),
        *(("queues", ("work", "work")), ("queues", (WORK,)), ("processes", 0), ("processes", "core")),
        *(("processes", None), ("isolated", 0), ("cores", 0), ("cores", "2"), ("slots", 0), ("slots", True)),
        *(("slots", "4"), ("prefetch", 0), ("nice", -5), ("nice", 20), ("cpus", (0, 0)), ("cpus", (-1,)), ("cpus", 2)),
        *(("database_connections", 0), ("shared_retries", "yes"), ("recycle_after", 0), ("recycle_above_bytes", -1)),
        ("memory_limit_bytes", 1.5),
    ],
)
def test_an_option_of_a_pool_that_cannot_be_used_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=rf"^pool work: {option} is .*; write "):
        Pool(**POOL | {option: value})


@pytest.mark.parametrize("name", ["", "two words", 7, None, "../up"])
def test_a_pool_name_that_cannot_name_a_folder_is_refused(name: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=r"^pool: name is .*; write 1 to 64 of"):
        Pool(**POOL | {"name": name})


@pytest.mark.parametrize(
    ("queues", "pools", "fact"),
    [
        ((WORK, WORK), (), "queue work: name is 'work'; rename all but one"),
        ((WORK,), (Pool(**POOL), Pool(**POOL)), "pool work: name is 'work'; rename all but one"),
        ([WORK], (), "yard: queues is .*; write a tuple of Queue"),
        (("work",), (), "yard: queues is .*; write a tuple of Queue"),
        ((WORK,), (WORK,), "yard: pools is .*; write a tuple of Pool"),
    ],
)
def test_a_yard_of_anything_but_queues_and_pools_with_names_of_their_own_is_refused(
    queues: Any, pools: Any, fact: str
) -> None:
    with pytest.raises(InvalidDeclaration, match=f"^{fact}"):
        Yard(queues, pools)


def test_a_topology_that_cannot_be_used_stops_the_start_with_78(tmp_path: Path) -> None:
    declared = "from switchyard.broker.topology import *\n"
    declared += "YARD = Yard((), (Pool('mail', 'threads', ('mail',), 1, 1, nice=20),))\n"
    (tmp_path / "wrong_topology.py").write_text(declared)
    start = "import project.config\nproject.config.TOPOLOGY = 'wrong_topology.YARD'\nimport project.settings"

    done = subprocess.run(
        [sys.executable, "-c", start], env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert "switchyard: refused to start: " in done.stderr
    assert "pool mail: nice is 20; write a number from 0 to 19" in done.stderr
    assert done.returncode == 78


@pytest.mark.parametrize(
    "name",
    [
        *("a:b", "__acks__:x", "", "A", "x" * 65, "x" * 10_000, "a\0", "a b", "ä", "a{b}", "a\n", "bodies", "token"),
        "refused",
    ],
)
def test_a_hostile_queue_name_is_refused_when_it_is_declared(name: str) -> None:
    with pytest.raises(InvalidDeclaration, match="; use 1 to 64"):
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)


@given(st.text(alphabet="abcz09_.-:{}/ é\0\n") | st.text())
def test_a_name_is_taken_only_if_its_keys_are_its_own(name: str) -> None:
    try:
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)
    except InvalidDeclaration:
        event("refused")
        return
    event("taken")
    keys = Keys("p").queue(name).all_keys()
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(f"p:{{{name}}}:") and key.count("{") == key.count("}") == 1 for key in keys)
