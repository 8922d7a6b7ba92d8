"""Purges: what is set aside, put back and dropped; what stays; and kills at every call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from broker.admin.purge import drop, purges, set_aside, undo
from broker.admin.purge import finish as finish_purges
from broker.keys.keys import Keys
from broker.queue import administration
from broker.queue.operations import QueueOperations
from broker.queue.results import HIGH, LOW, Entry
from broker.redis.calls import RedisCalls
from broker.redis.scripts import script
from broker.stores.ended_jobs import EndedJob
from broker.stores.job_records import JobRecords
from broker.stores.job_steps import ended_step
from tests.integration.broker.admin.test_relocate import Killed, MortalCalls

BODY = b'{"actor":"an_actor","sent_at":1}'
WORKER, RETRIES = "worker/live", "worker/retry"


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    """A queue family with an owner in two lanes."""
    family = QueueOperations(RedisCalls(valkey), Keys(prefix="purged").queue("old"))
    family.join(WORKER)
    family.join(RETRIES)
    return family


def fill(family: QueueOperations, count: int = 20) -> set[str]:
    """Enqueue messages in every place that a purge empties, one leased before; return the ids of the waiting ones."""
    family.enqueue([Entry("leased", BODY, "leased-key")], level=HIGH)
    [held] = family.fetch(WORKER, 1, request=1).grants
    assert held.lease.id == b"leased"
    family.enqueue([Entry(f"n{number}", BODY, f"key-{number}") for number in range(count)])
    family.enqueue([Entry("high", BODY)], level=HIGH)
    family.enqueue([Entry("low", BODY)], level=LOW)
    family.enqueue([Entry("later", BODY)], delay_ms=3_600_000)
    family.enqueue([Entry("retry", BODY)], lane="retry")
    family.enqueue([Entry("retry-later", BODY)], lane="retry", delay_ms=3_600_000)
    return {*(f"n{number}" for number in range(count)), "high", "low", "later", "retry", "retry-later"}


def everything(family: QueueOperations) -> dict[str, Any]:
    """Return all that is in the family's live keys but wake-up tokens, tokens and sweeps."""
    client, kinds = family.calls.client, {}
    read = {"list": "LRANGE {} 0 -1", "hash": "HGETALL {}", "zset": "ZRANGE {} 0 -1 WITHSCORES"}
    for key, kind in family.keys.kinds():
        if kind in read and not key.endswith(".bell") and "done:" not in key:
            found = client.execute_command(*read[kind].format(key).split())
            if found:
                kinds[key] = sorted(found.items()) if isinstance(found, dict) else found
    return kinds


def all_keys(family: QueueOperations) -> list[bytes]:
    found: list[bytes] = family.calls.client.keys("purged:*aside*")
    return found


def finish(steps: Iterator[int]) -> int:
    return max(steps, default=0)


def test_undone_purge_leaves_the_queue_as_it_was(family: QueueOperations) -> None:
    fill(family)
    before = everything(family)

    assert set_aside(family, "p", by="me", reason="why") == 25
    [purge] = purges(family)
    assert (purge.count, purge.by, purge.reason, purge.claim) == (25, "me", "why", "")
    assert purge.until - purge.at == 60_000
    assert undo(family, "p", step=7) == 25

    assert everything(family) == before
    assert all_keys(family) == [] and purges(family) == []


def test_leased_messages_are_not_touched(family: QueueOperations) -> None:
    fill(family)
    set_aside(family, "p", by="me")

    assert family.held(WORKER)[0].id == b"leased"
    assert family.enqueue([Entry("again", BODY, "leased-key")]) == ["leased"], "its unique key is held"
    assert family.ack(WORKER, family.held(WORKER)) == []
    assert everything(family).keys() == {family.keys.leases, family.keys.purges}


def test_dropped_messages_free_their_keys_and_notes(family: QueueOperations) -> None:
    ids = fill(family)
    set_aside(family, "p", by="me", undo_ms=0)
    seen: list[bytes] = []

    dropped = finish(drop(family, "p", dropped=lambda lane, found, bodies: seen.extend(found), step=7))

    assert dropped == len(ids) and {str(id_, "ascii") for id_ in seen} == ids
    assert all_keys(family) == [] and purges(family) == []
    assert family.enqueue([Entry("n1", BODY, "key-2")]) == ["n1"]


def test_a_purge_is_not_dropped_while_it_can_be_undone(family: QueueOperations) -> None:
    fill(family)
    set_aside(family, "p", by="me")

    assert list(drop(family, "p")) == []
    assert purges(family)[0].claim == ""


def test_the_first_of_undo_and_drop_decides(family: QueueOperations) -> None:
    fill(family)
    set_aside(family, "dropping", by="me", undo_ms=0)
    steps = drop(family, "dropping", step=7)
    next(steps)
    with pytest.raises(LookupError, match="is being dropped"):
        undo(family, "dropping")
    finish(steps)
    with pytest.raises(LookupError, match="is over"):
        undo(family, "dropping")

    fill(family, 5)
    set_aside(family, "undoing", by="me", undo_ms=0)
    family.enqueue([Entry(f"since-{number}", BODY) for number in range(5)])
    family.calls.call(script("claim_purge"), [family.keys.purges], ["undoing", "undo"])
    assert list(drop(family, "undoing")) == []
    assert undo(family, "undoing", step=2) == 10


def test_messages_sent_meanwhile_stay_and_are_the_same_once(family: QueueOperations) -> None:
    fill(family, 5)
    set_aside(family, "p", by="me")
    family.enqueue([Entry("n1", b'{"actor":"new"}'), Entry("new", BODY, "key-2")])

    assert undo(family, "p") == 10

    bodies = family.calls.client.hgetall(family.keys.bodies)
    assert bodies[b"n1"] == b'{"actor":"new"}'
    assert family.calls.client.hget(family.keys.unique, "key-2") == b"new"
    ids = family.calls.client.lrange(family.keys.waiting("live")[1], 0, -1)
    assert ids == [b"n0", b"n1", b"n2", b"n3", b"n4", b"new"]
    assert administration.cancel(family, "n2") == "cancelled"
    assert family.calls.client.hget(family.keys.unique, "key-2") == b"new", "the key of another is not freed"


def test_a_drop_records_neither_untracked_jobs_nor_those_sent_again(family: QueueOperations) -> None:
    untracked = b'{"actor":"an_actor","sent_at":1,"options":{"track":false}}'
    again = [Entry("done", BODY), Entry("waits", BODY)]
    records = JobRecords(family.calls, Keys(prefix="purged"), ["old"])
    family.enqueue([*again, Entry("untracked", untracked), Entry("purged", BODY)])
    set_aside(family, "p", by="me", undo_ms=0)
    family.enqueue(again)
    family.ack(WORKER, [grant.lease for grant in family.fetch(WORKER, 1, request=1).grants])
    records.write([ended_step("old", EndedJob("done", "succeeded", attempt=1, body=BODY))])

    finish_purges(family, records)

    assert records.states(["done", "waits", "untracked", "purged"]) == ["succeeded", "queued", None, "cancelled"]


def test_two_purges_lie_beside_each_other(family: QueueOperations) -> None:
    fill(family, 5)
    set_aside(family, "first", by="me", undo_ms=0)
    family.enqueue([Entry("second", BODY)])
    set_aside(family, "second", by="me")

    assert finish(drop(family, "first")) == 10
    assert undo(family, "second") == 1
    assert family.calls.client.lrange(family.keys.waiting("live")[1], 0, -1) == [b"second"]


def test_an_empty_queue_has_nothing_to_set_aside(family: QueueOperations) -> None:
    assert set_aside(family, "p", by="me") == 0
    assert purges(family) == []


def test_a_repeated_call_sets_nothing_more_aside(family: QueueOperations) -> None:
    fill(family, 5)
    assert set_aside(family, "p", by="me") == 10
    family.enqueue([Entry("new", BODY)])

    assert set_aside(family, "p", by="me") == 10
    assert family.calls.client.llen(family.keys.waiting("live")[1]) == 1


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("act", ["undo", "drop"])
def test_a_kill_at_any_call_loses_and_doubles_nothing(
    family: QueueOperations, valkey: redis.Redis, act: str, answered: bool
) -> None:
    since = [Entry(f"since-{number}", BODY) for number in range(10)]
    for last in range(1, 30):
        valkey.flushdb()
        family.join(WORKER)
        family.join(RETRIES)
        fill(family)
        ids = {*valkey.hkeys(family.keys.bodies), *(entry.id.encode() for entry in since)}
        mortal = QueueOperations(MortalCalls(valkey, last, answered=answered), family.keys)
        killed = False
        try:
            set_aside(mortal, "p", by="me", undo_ms=0)
            family.enqueue(since)
            undo(mortal, "p", step=3) if act == "undo" else finish(drop(mortal, "p", step=7))
        except Killed:
            killed = True
        is_set_aside = last > 1 or answered
        family.enqueue(since)
        for purge in purges(family):
            undo(family, purge.id) if act == "undo" else finish(drop(family, purge.id))

        assert purges(family) == [] and all_keys(family) == []
        if act == "undo" or not is_set_aside:
            assert set(valkey.hkeys(family.keys.bodies)) == ids
            order = [f"n{number}".encode() for number in range(20)] + [entry.id.encode() for entry in since]
            assert valkey.lrange(family.keys.waiting("live")[1], 0, -1) == order
        else:
            assert set(valkey.hkeys(family.keys.bodies)) == {b"leased", *(entry.id.encode() for entry in since)}
        if not killed:
            return
    pytest.fail("it was killed at every call")
