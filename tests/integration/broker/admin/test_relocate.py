"""Messages that are relocated keep their unique key, their crashes and a request to cancel them, whatever is killed."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from switchyard.broker.admin.purge import relocate
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import HIGH, Entry, Grant, QueueOperations
from switchyard.broker.redis.calls import RedisCalls

BODY = b'{"actor":"an_actor","sent_at":1}'
WORKER = "worker/live"


class Killed(BaseException):
    """The process that relocates is killed."""


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
        """Run an operation, unless the process is killed at it."""
        self._left -= 1
        if self._left == 0:
            if self._answered:
                super().call(*args, **options)
            raise Killed
        return super().call(*args, **options)


@pytest.fixture
def families(valkey: redis.Redis) -> tuple[QueueOperations, QueueOperations]:
    """Two queue families, each with an owner :data:`WORKER`."""
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
    """Return what waits in a family."""
    return family.fetch(WORKER, 10, request=1).grants


def test_a_unique_key_moves_with_its_message(families: Families) -> None:
    source, target = families
    source.enqueue([Entry("first", BODY, "a-key")])

    assert move(source, target) == 1

    assert target.enqueue([Entry("second", BODY, "a-key")]) == ["first"]
    assert source.enqueue([Entry("third", BODY, "a-key")]) == ["third"]
    target.ack(WORKER, [grant.lease for grant in fetched(target)])
    assert target.enqueue([Entry("fourth", BODY, "a-key")]) == ["fourth"], "its end frees the key"


def test_a_message_whose_unique_key_is_held_in_the_new_queue_moves_without_it(families: Families) -> None:
    source, target = families
    source.enqueue([Entry("first", BODY, "a-key")])
    target.enqueue([Entry("second", BODY, "a-key")])

    assert move(source, target) == 1

    first, second = sorted(fetched(target), key=lambda grant: grant.lease.id)
    assert (first.lease.id, second.lease.id) == (b"first", b"second")
    target.ack(WORKER, [first.lease])
    assert target.enqueue([Entry("third", BODY, "a-key")]) == ["second"], "the key is still its holder's"


def test_a_request_to_cancel_moves_with_its_message(families: Families) -> None:
    source, target = families
    source.enqueue([Entry("asked", BODY)])
    [grant] = fetched(source)
    assert administration.cancel(source, {"asked": b""})["asked"] == "asked"
    source.release(WORKER, [grant.lease])

    assert move(source, target) == 1

    assert [grant.cancel_requested for grant in fetched(target)] == [True]


@pytest.mark.parametrize("step", ["place", "forget"])
def test_a_request_to_cancel_that_comes_meanwhile_moves_too(
    families: Families, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
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


def test_crashes_are_counted_on_in_the_new_queue(families: Families) -> None:
    source, target = families
    source.enqueue([Entry("suspect", BODY)], level=HIGH)
    fetched(source)
    source.reclaim(WORKER, running=["suspect"], cause="killed by SIGSEGV")

    assert move(source, target) == 1

    [grant] = fetched(target)
    assert (grant.crashes, grant.cause) == (1, "killed by SIGSEGV")


@pytest.mark.parametrize("answered", [False, True], ids=["before the call", "after the call"])
def test_a_kill_between_any_two_calls_is_mended_by_another_relocation(
    families: Families, valkey: redis.Redis, answered: bool
) -> None:
    source, target = families
    calls = count_calls(source, target, valkey, answered=answered)

    for last in range(1, calls + 1):
        valkey.flushdb()
        source.join(WORKER)
        target.join(WORKER)
        stock(source)
        with pytest.raises(Killed):
            move(*mortal(source, target, valkey, last, answered=answered))
        for owner in source.owners():
            if owner != WORKER:
                source.reclaim(owner)  # as the sweep of a supervisor does, once its lease lapsed

        move(source, target)

        grants = fetched(target)
        assert sorted((grant.lease.id, grant.cancel_requested) for grant in grants) == [
            (b"asked", True),
            (b"keyed", False),
        ]
        assert fetched(source) == [], f"killed at call {last}: a message is in both queues"
        assert target.enqueue([Entry("another", BODY, "a-key")]) == ["keyed"]


def stock(source: QueueOperations) -> None:
    """Put a message with a unique key, and one whose cancellation was requested, into a queue."""
    source.enqueue([Entry("asked", BODY)])
    [grant] = fetched(source)
    administration.cancel(source, {"asked": b""})
    source.release(WORKER, [grant.lease])
    source.enqueue([Entry("keyed", BODY, "a-key")])


def mortal(
    source: QueueOperations, target: QueueOperations, client: redis.Redis, last: int, *, answered: bool
) -> tuple[QueueOperations, QueueOperations]:
    """Return both families as a process reaches them that is killed at a call."""
    calls = MortalCalls(client, last, answered=answered)
    return QueueOperations(calls, source.keys), QueueOperations(calls, target.keys)


def count_calls(source: QueueOperations, target: QueueOperations, client: redis.Redis, *, answered: bool) -> int:
    stock(source)
    counted = MortalCalls(client, 1_000, answered=answered)
    before = counted._left
    move(QueueOperations(counted, source.keys), QueueOperations(counted, target.keys))
    return before - counted._left


def test_live_records_and_progress_do_not_stay_behind(families: tuple[QueueOperations, QueueOperations]) -> None:
    source, target = families
    source.enqueue([Entry("a", BODY)])
    for key in (source.keys.jobs, source.keys.progress):
        source.calls.command("HSET", key, "a", "of an attempt before")

    list(relocate(source, target, actor="an_actor"))

    assert [source.calls.command("EXISTS", key) for key in (source.keys.jobs, source.keys.progress)] == [0, 0]
