"""Messages that took their worker down, on the server: counted, marked, and put into the lane where they run alone."""

from __future__ import annotations

import uuid

import pytest
import redis

from switchyard.broker.admin.stats import family_stats
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, Grant, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    """A queue family of this test's own, with a message, and owners that fetch once each."""
    family = QueueOperations(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))
    family.enqueue([Entry("a", b"A")])
    return family


def grant(family: QueueOperations, owner: str) -> Grant:
    """Return what a new owner fetches."""
    family.join(owner)
    [found] = family.fetch(owner, 1, request=1).grants
    return found


def test_a_crash_is_counted_with_its_cause_and_told_to_who_fetches_next(family: QueueOperations) -> None:
    grant(family, "1/live")
    family.reclaim("1/live", running=["a"], cause="SIGSEGV, pid 7")
    again = grant(family, "2/live")
    family.reclaim("2/live", running=["a"], cause="SIGKILL, pid 8")

    third = grant(family, "3/live")

    assert (again.crashes, again.cause, again.cancel_requested) == (1, "SIGSEGV, pid 7", False)
    assert (third.crashes, third.cause) == (2, "SIGKILL, pid 8")


def test_a_kill_for_the_limit_is_marked_but_no_crash(family: QueueOperations) -> None:
    grant(family, "1/live")

    family.reclaim("1/live", running=["a"], cause="limit 3000 ms")

    found = grant(family, "2/live")
    assert (found.crashes, found.cause) == (0, "limit 3000 ms")


def test_what_was_moved_after_a_crash_still_runs_alone_but_has_no_limit_to_answer_for(family: QueueOperations) -> None:
    grant(family, "1/live")
    family.reclaim("1/live", running=["a"], cause="limit 3000 ms")
    held = grant(family, "2/live")

    family.move(held.lease, move="divert", lane="retry", body=b"B", delay_ms=0)

    found = grant(family, "3/retry")
    assert (found.crashes, found.cause, found.body) == (0, "alone", b"B")


def test_an_isolated_message_waits_in_its_own_lane_with_its_count_and_counts_among_the_live(
    family: QueueOperations, valkey: redis.Redis
) -> None:
    grant(family, "1/live")
    family.reclaim("1/live", running=["a"], cause="SIGSEGV")
    held = grant(family, "2/live")

    answers = [family.isolate(held.lease), family.isolate(held.lease)]

    assert answers == [True, True]
    family.join("3/live")
    assert family.fetch("3/live", 1, request=1).grants == []
    stats = family_stats(RedisCalls(valkey), family.keys)
    assert (stats.live.waiting, stats.live.running) == (1, 0)
    found = grant(family, "4/alone")
    assert (found.lease.id, found.crashes, found.cause, found.body) == (b"a", 1, "SIGSEGV", b"A")
    assert family_stats(RedisCalls(valkey), family.keys).live.running == 1
    assert not family.isolate(Lease("2/live", b"a", b"1"))


def test_success_clears_the_count(family: QueueOperations) -> None:
    grant(family, "1/live")
    family.reclaim("1/live", running=["a"], cause="SIGSEGV")
    held = grant(family, "2/live")

    family.ack("2/live", [held.lease])

    assert family.calls.command("HLEN", family.keys.notes) == 0


def test_what_runs_alone_can_be_cancelled_and_asked_to_stop(family: QueueOperations) -> None:
    held = grant(family, "1/live")
    family.isolate(held.lease)
    grant(family, "2/alone")
    family.reclaim("2/alone", running=["a"], cause="SIGSEGV")
    again = grant(family, "3/alone")
    family.move(again.lease, move="defer", lane="alone", body=b"A", delay_ms=60_000)

    answer = administration.cancel(family, {"a": b""})["a"]

    assert answer == "cancelled"
    assert family.calls.command("ZCARD", family.keys.due("alone")) == 0
