"""Purges and moves of queues: what they carry, what is undone, what stays; and kills at every call."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from switchyard.broker.admin.purge import drop, purges, relocate, set_aside, undo
from switchyard.broker.admin.purge import finish as finish_purges
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import HIGH, LOW, Entry, Grant, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.history_streams import EndedJob, Failure, LiveJob, ended_step, live_step
from switchyard.broker.stores.job_records import JobRecords, sweep

BODY = b'{"actor":"an_actor","sent_at":1}'
WORKER = "worker/live"


class Killed(BaseException): ...


class MortalCalls(RedisCalls):
    """Calls of a process that is killed at one of them.

    Args:
        last: Number of the call at which it is killed, from 1.
        answered: The server runs that call, and the process is killed before it reads the answer.
    """

    def __init__(self, client: redis.Redis, last: int, *, answered: bool) -> None:
        super().__init__(client)
        self._left, self._answered = last, answered

    def call(self, *args: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            if self._answered:
                super().call(*args, **options)
            raise Killed
        return super().call(*args, **options)


@pytest.fixture
def families(valkey: redis.Redis) -> tuple[QueueOperations, QueueOperations]:
    calls, keys = RedisCalls(valkey), Keys(prefix="relocated")
    source, target = (QueueOperations(calls, keys.queue(name)) for name in ("old", "new"))
    source.join(WORKER)
    target.join(WORKER)
    return source, target


Families = tuple[QueueOperations, QueueOperations]


def move(source: QueueOperations, target: QueueOperations) -> int:
    """Relocate everything, and return how many messages moved."""
    return max((step.moved for step in relocate(source, target, actor="an_actor")), default=0)


def fetched(family: QueueOperations) -> list[Grant]:
    return family.fetch(WORKER, 10, request=1).grants


def test_a_unique_key_moves_with_its_message(families):
    source, target = families
    source.enqueue([Entry("first", BODY, "a-key")])

    assert move(source, target) == 1

    assert target.enqueue([Entry("second", BODY, "a-key")]) == ["first"]
    assert source.enqueue([Entry("third", BODY, "a-key")]) == ["third"]
    target.ack(WORKER, [grant.lease for grant in fetched(target)])
    assert target.enqueue([Entry("fourth", BODY, "a-key")]) == ["fourth"], "its end frees the key"


def test_a_message_whose_unique_key_is_held_in_the_new_queue_moves_without_it(families):
    source, target = families
    source.enqueue([Entry("first", BODY, "a-key")])
    target.enqueue([Entry("second", BODY, "a-key")])

    assert move(source, target) == 1

    first, second = sorted(fetched(target), key=lambda grant: grant.lease.id)
    assert (first.lease.id, second.lease.id) == (b"first", b"second")
    target.ack(WORKER, [first.lease])
    assert target.enqueue([Entry("third", BODY, "a-key")]) == ["second"], "the key is still its holder's"


@pytest.mark.parametrize("step", ["place", "forget"])
def test_a_request_to_cancel_that_comes_meanwhile_moves_too(families, monkeypatch, step):
    source, target = families
    source.enqueue([Entry("asked", BODY), Entry("other", BODY)])
    act, answers = getattr(administration, step), []

    def cancelled_first(*args: Any, **options: Any) -> Any:
        answers.append(administration.cancel(source, {"asked": b""})["asked"])
        return act(*args, **options)

    monkeypatch.setattr(administration, step, cancelled_first)

    assert move(source, target) == 2

    assert answers[0] == "asked"
    assert [(grant.lease.id, grant.cancel_requested) for grant in fetched(target)] == [
        (b"asked", True),
        (b"other", False),
    ]
    assert source.calls.command("HLEN", source.keys.bodies) == 0


def test_crashes_are_counted_on_in_the_new_queue(families):
    source, target = families
    source.enqueue([Entry("suspect", BODY)], level=HIGH)
    fetched(source)
    source.reclaim(WORKER, running=["suspect"], cause="killed by SIGSEGV")

    assert move(source, target) == 1

    [grant] = fetched(target)
    assert (grant.crashes, grant.cause) == (1, "killed by SIGSEGV")


@pytest.mark.parametrize("answered", [False, True], ids=["before the call", "after the call"])
def test_a_kill_between_any_two_calls_is_mended_by_another_relocation(families, valkey, answered):
    source, target = families
    for last in range(1, 30):
        valkey.flushdb()
        source.join(WORKER)
        target.join(WORKER)
        source.enqueue([Entry("asked", BODY)])
        [grant] = fetched(source)
        administration.cancel(source, {"asked": b""})
        source.release(WORKER, [grant.lease])
        source.enqueue([Entry("keyed", BODY, "a-key")])
        calls = MortalCalls(valkey, last, answered=answered)
        try:
            move(QueueOperations(calls, source.keys), QueueOperations(calls, target.keys))
            return
        except Killed:
            pass
        for owner in source.owners():
            if owner != WORKER:
                source.reclaim(owner)  # as the sweep of a supervisor does, once its lease lapsed

        move(source, target)

        assert sorted((grant.lease.id, grant.cancel_requested) for grant in fetched(target)) == [
            (b"asked", True),
            (b"keyed", False),
        ]
        assert fetched(source) == [], f"killed at call {last}: a message is in both queues"
        assert target.enqueue([Entry("another", BODY, "a-key")]) == ["keyed"]
    pytest.fail("it was killed at every call")


def test_live_records_and_progress_do_not_stay_behind(families):
    source, target = families
    source.enqueue([Entry("a", BODY)])
    for key in (source.keys.jobs, source.keys.progress):
        source.calls.command("HSET", key, "a", "of an attempt before")

    move(source, target)

    assert [source.calls.command("EXISTS", key) for key in (source.keys.jobs, source.keys.progress)] == [0, 0]


RETRIES = "worker/retry"


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
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


def test_undone_purge_leaves_the_queue_as_it_was(family):
    fill(family)
    before = everything(family)

    assert set_aside(family, "p", by="me", reason="why") == 25
    [purge] = purges(family)
    assert (purge.count, purge.by, purge.reason, purge.claim) == (25, "me", "why", "")
    assert purge.until - purge.at == 60_000
    assert undo(family, "p", step=7) == (25, 0)

    assert everything(family) == before
    assert all_keys(family) == [] and purges(family) == []


def test_leased_messages_are_not_touched(family):
    fill(family)
    set_aside(family, "p", by="me")

    assert family.held(WORKER)[0].id == b"leased"
    assert family.enqueue([Entry("again", BODY, "leased-key")]) == ["leased"], "its unique key is held"
    assert family.ack(WORKER, family.held(WORKER)) == []
    assert everything(family).keys() == {
        *(family.keys.leases, family.keys.purges, family.keys.yields, family.keys.stand_ins, family.keys.sends)
    }


def test_dropped_messages_free_their_keys_and_notes(family):
    ids = fill(family)
    set_aside(family, "p", by="me", undo_ms=0)
    seen: list[bytes] = []

    dropped = finish(drop(family, "p", dropped=lambda lane, found, bodies: seen.extend(found), step=7))

    assert dropped == len(ids) and {str(id_, "ascii") for id_ in seen} == ids
    assert all_keys(family) == [] and purges(family) == []
    assert family.enqueue([Entry("n1", BODY, "key-2")]) == ["n1"]


def test_a_purge_is_not_dropped_while_it_can_be_undone(family):
    fill(family)
    set_aside(family, "p", by="me")

    assert list(drop(family, "p")) == []
    assert purges(family)[0].claim == ""


def test_the_first_of_undo_and_drop_decides(family):
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
    assert undo(family, "undoing", step=2) == (10, 0)


def test_messages_sent_meanwhile_stay_and_are_the_same_once(family):
    fill(family, 5)
    set_aside(family, "p", by="me")
    family.enqueue([Entry("n1", b'{"actor":"new"}'), Entry("new", BODY, "key-2")])

    assert undo(family, "p") == (9, 1)

    assert family.calls.client.hgetall(family.keys.bodies)[b"n1"] == b'{"actor":"new"}'
    assert family.calls.client.hget(family.keys.unique, "key-2") == b"new"
    ids = family.calls.client.lrange(family.keys.waiting("live")[1], 0, -1)
    assert ids == [b"n0", b"n2", b"n3", b"n4", b"n1", b"new"]
    assert administration.cancel(family, {"n2": b""})["n2"] == "cancelled"
    assert family.calls.client.hget(family.keys.unique, "key-2") == b"new", "the key of another is not freed"
    assert all_keys(family) == []


@pytest.mark.parametrize("step", [1, 100])
def test_an_undo_leaves_out_what_was_sent_again_whatever_has_become_of_it(family, step):
    names = ["ended", "dead", "runs", "waits", "scheduled"]
    family.enqueue([Entry(name, BODY, f"key-{name}") for name in names])
    family.enqueue([Entry("retried", BODY)], lane="retry", delay_ms=3_600_000)
    set_aside(family, "p", by="me")
    newer = b'{"actor":"newer","sent_at":2}'
    family.enqueue([Entry(name, newer) for name in ("ended", "dead", "runs")])
    ended, dead, runs = family.fetch(WORKER, 3, request=1).grants
    family.ack(WORKER, [ended.lease])
    assert family.dead_letter(dead.lease, b"{}")
    family.enqueue([Entry("retried", newer), Entry("scheduled", newer)], delay_ms=7_200_000)
    before = everything(family)

    assert undo(family, "p", step=step) == (1, 5)

    after = everything(family)
    assert after.pop(family.keys.waiting("live")[1]) == [b"waits"]
    bodies = dict(after[family.keys.bodies])
    assert bodies.pop(b"waits") == BODY and set(bodies.values()) == {newer}
    assert after.pop(family.keys.unique) == [(b"key-waits", b"waits")]
    assert dict(after[family.keys.notes]).pop(b"key:waits") == b"key-waits"
    assert after[family.keys.due("live")] == before[family.keys.due("live")]
    assert family.keys.due("retry") not in after
    assert family.ack(WORKER, [runs.lease]) == []
    assert all_keys(family) == []


def test_live_records_go_along_with_what_is_set_aside(family):
    records = JobRecords(family.calls, Keys(prefix="purged"), ["old"])
    retried = b'{"actor":"an_actor","sent_at":1,"options":{"attempts":2}}'
    for name in ("runs", "retried", "again"):
        family.enqueue([Entry(name, BODY)])
    leases = {grant.lease.id: grant.lease for grant in family.fetch(WORKER, 3, request=1).grants}
    error = Failure("OSError", "no route")
    live = [LiveJob(name, "retrying", attempt=2, started_at=1_000, error=error) for name in ("retried", "again")]
    records.write([live_step("old", job) for job in [*live, LiveJob("runs", "running", attempt=1)]])
    for id_ in (b"retried", b"again"):
        family.move(leases[id_], move="divert", lane="retry", body=retried, delay_ms=3_600_000)
    set_aside(family, "p", by="me")

    assert sweep(records) == 0
    family.enqueue([Entry("again", BODY)])
    shown = [record and (record.state, record.attempts) for record in records.read_many(["runs", "retried", "again"])]
    assert shown == [("running", 1), ("retrying", 2), ("queued", 0)]
    [grant] = family.fetch(WORKER, 1, request=2).grants
    assert records.write([live_step("old", LiveJob("again", "running", attempt=1, started_at=2_000))]) == ["written"]
    assert undo(family, "p") == (1, 1)
    found = records.read("retried")
    assert found is not None and found.error == {"type": "OSError", "message": "no route"}
    assert sweep(records) == 0
    assert records.states(["runs", "again"]) == ["running", "running"]
    assert family.ack(WORKER, [grant.lease]) == [] and all_keys(family) == []


def test_jobs_that_are_set_aside_are_answered_as_where_they_were(family):
    records = JobRecords(family.calls, Keys(prefix="purged"), ["old"])
    fill(family, 3)
    family.enqueue([Entry("stopped", BODY)])
    assert administration.cancel(family, {"stopped": b""})["stopped"] == "cancelled"
    names = ["n1", "high", "later", "retry-later", "stopped", "nobody"]
    before = records.read_many(names)

    set_aside(family, "p", by="me", undo_ms=0)

    assert records.read_many(names) == before
    assert records.states(names) == ["queued", "queued", "scheduled", "scheduled", "cancelled", None]
    finish(drop(family, "p"))
    assert records.states(names) == [None] * 6


@pytest.mark.parametrize("name", ["", "p:claim", "p:left_out", "a b", "x" * 65, "{p}"])
def test_an_id_that_is_none_of_a_purge_is_refused(family, name):
    fill(family, 3)
    with pytest.raises(ValueError, match="purge id"):
        set_aside(family, name, by="me")
    set_aside(family, "p", by="me", undo_ms=0)
    family.calls.call(script("claim_purge"), [family.keys.purges], ["p", "undo"])

    with pytest.raises(LookupError, match="there is no purge"):
        undo(family, name)
    assert family.calls.client.hlen(family.keys.purges) == 2


def test_a_drop_records_neither_untracked_jobs_nor_those_sent_again(family):
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


def test_two_purges_lie_beside_each_other(family):
    fill(family, 5)
    set_aside(family, "first", by="me", undo_ms=0)
    family.enqueue([Entry("second", BODY)])
    set_aside(family, "second", by="me")

    assert finish(drop(family, "first")) == 10
    assert undo(family, "second") == (1, 0)
    assert family.calls.client.lrange(family.keys.waiting("live")[1], 0, -1) == [b"second"]


def test_a_repeated_call_sets_nothing_more_aside(family):
    fill(family, 5)
    assert set_aside(family, "p", by="me") == 10
    family.enqueue([Entry("new", BODY)])

    assert set_aside(family, "p", by="me") == 10
    assert family.calls.client.llen(family.keys.waiting("live")[1]) == 1


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("act", ["undo", "drop"])
def test_a_kill_at_any_call_loses_and_doubles_nothing(family, valkey, act, answered):
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
