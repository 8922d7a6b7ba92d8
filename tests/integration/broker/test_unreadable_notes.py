"""A queue's note that was written by hand, and that no script can read, makes no message disappear."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, Grant, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from tests.waiting import wait_for

UNREADABLE: dict[Any, Any] = {"level:a": "urgent", "crash:a": "often"}


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    """A queue family of this test's own, with a message whose notes say nothing."""
    keys = Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work")
    family = QueueOperations(RedisCalls(valkey), keys)
    family.enqueue([Entry("a", b"A")], level=1)
    valkey.hset(keys.notes, mapping=UNREADABLE)
    return family


def only(family: QueueOperations, owner: str) -> Grant:
    """Return what a new owner fetches."""
    family.join(owner)
    [found] = family.fetch(owner, 5, request=1).grants
    return found


def test_it_is_fetched_and_no_crash_is_known_of_it(family: QueueOperations) -> None:
    found = only(family, "1/live")

    assert (found.body, found.crashes, found.cause) == (b"A", 0, "")


def test_it_is_given_back(family: QueueOperations) -> None:
    held = only(family, "1/live")

    assert family.release("1/live", [held.lease]) == []

    assert only(family, "2/live").body == b"A"


def test_it_becomes_due(family: QueueOperations, valkey: redis.Redis) -> None:
    held = only(family, "1/live")
    family.move(held.lease, move="divert", lane="live", body=b"B", delay_ms=1, level=1)
    valkey.hset(family.keys.notes, mapping=UNREADABLE)
    family.join("2/live")
    found: list[Grant] = []

    def fetched() -> bool:
        found.extend(family.fetch("2/live", 5, request=next(requests)).grants)
        return bool(found)

    requests = itertools.count(1)
    wait_for(fetched)

    assert [grant.body for grant in found] == [b"B"]


def test_it_is_isolated(family: QueueOperations) -> None:
    held = only(family, "1/live")

    assert family.isolate(held.lease)

    assert only(family, "2/alone").body == b"A"


def test_it_comes_back_from_an_owner_that_died(family: QueueOperations, valkey: redis.Redis) -> None:
    only(family, "1/live")

    reclaimed = family.reclaim("1/live", running=["a"], cause="SIGSEGV, pid 7")

    assert reclaimed is not None
    assert reclaimed.returned == 1

    found = only(family, "2/live")
    assert (found.body, found.crashes) == (b"A", 1)
