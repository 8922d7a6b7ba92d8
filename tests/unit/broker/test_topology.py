"""A yard knows its lanes, who serves them, and what nobody may."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from broker.errors import InvalidQueueName, UnknownPool, UnknownQueue
from broker.keys.keys import Keys
from broker.topology import Queue
from project.topology import YARD


def test_every_lane_of_this_yard_is_served_by_exactly_one_pool() -> None:
    assert {lane: len(YARD.pools_of(lane)) for lane in YARD.lanes} == dict.fromkeys(YARD.lanes, 1)


def test_no_pool_serves_a_dead_list() -> None:
    assert all(not YARD.pools_of(queue.dead_list) for queue in YARD.queues)
    assert not any(lane.endswith("-dead") for lane in YARD.lanes)


def test_retry_lanes_that_no_pool_names_are_shared() -> None:
    assert [pool.name for pool in YARD.pools_of("webhook-retry")] == ["webhook-retry"]
    assert [pool.name for pool in YARD.pools_of("slow-retry")] == ["retries"]
    assert "webhook-retry" not in YARD.served_by(YARD.pool("retries"))


@pytest.mark.parametrize("max_depth", [0, -1])
def test_a_depth_that_takes_nothing_is_refused(max_depth: int) -> None:
    with pytest.raises(ValueError, match=f"queue work: max_depth is {max_depth}"):
        Queue("work", None, 1, 2, max_depth=max_depth)


@pytest.mark.parametrize("lane", ["webhook", "webhook-retry", "webhook-dead"])
def test_a_lane_belongs_to_its_family(lane: str) -> None:
    assert YARD.queue_of(lane).name == "webhook"


def test_what_is_not_declared_is_named_with_what_is() -> None:
    with pytest.raises(UnknownQueue, match="'web' is not declared; the yard has urgent, default"):
        YARD.queue_of("web")
    with pytest.raises(UnknownPool, match="'web' is not declared"):
        YARD.pool("web")


@pytest.mark.parametrize(
    "name",
    [
        "a:b",
        "__acks__:x",
        "",
        "A",
        "x" * 65,
        "x" * 10_000,
        "a\0",
        "a b",
        "ä",
        "a{b}",
        "a\n",
        "bodies",
        "token",
        "refused",
    ],
)
def test_a_hostile_queue_name_is_refused_when_it_is_declared(name: str) -> None:
    with pytest.raises(InvalidQueueName, match="not allowed; use 1 to 64"):
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)


@given(st.text(alphabet="abcz09_.-:{}/ é\0\n") | st.text())
def test_a_name_is_taken_only_if_its_keys_are_its_own(name: str) -> None:
    try:
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)
    except InvalidQueueName:
        event("refused")
        return
    event("taken")
    keys = Keys("p").queue(name).all_keys()
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(f"p:{{{name}}}:") and key.count("{") == key.count("}") == 1 for key in keys)
