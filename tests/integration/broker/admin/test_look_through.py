"""The first messages of queues, read in chunks without changing them."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.admin import browse as module
from switchyard.broker.admin.browse import compared_fields_of, look_through
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker

HOUR_MS = 3_600_000
NAMES = ("first", "second")


def families_of(broker: RedisBroker) -> list[QueueOperations]:
    return [broker.lane(name)[0] for name in NAMES]


def send(broker: RedisBroker, name: str, count: int, **options: Any) -> list[str]:
    actor = broker.actors[f"job_{name}"]
    return [actor.send_with_options(args=(number,), **options).message_id for number in range(count)]


@pytest.mark.parametrize(("at_once", "a_trip"), [(3, 4), (2, 100), (500, 2_000)])
def test_each_message_has_its_own_body_however_it_is_read(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, at_once: int, a_trip: int
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    monkeypatch.setattr(module, "A_TRIP", a_trip)
    waiting = {name: send(broker, name, count) for name, count in zip(NAMES, (11, 4), strict=True)}
    scheduled = send(broker, "second", 5, delay=HOUR_MS)
    due = dict(scores_of(broker, "second"))

    looked = look_through(families_of(broker))

    seen = {message.id: message for message in looked.messages}
    assert len(looked.messages) == len(seen) == 20
    assert looked.cut == []
    for name, ids in waiting.items():
        assert [(seen[id_].queue, seen[id_].lane, seen[id_].place, seen[id_].due_at) for id_ in ids] == [
            (name, "live", "waiting", None)
        ] * len(ids)
        assert [argument_of(seen[id_].body) for id_ in ids] == [f"[{number}]" for number in range(len(ids))]
    assert [(seen[id_].place, seen[id_].due_at) for id_ in scheduled] == [("scheduled", due[id_]) for id_ in scheduled]
    assert [argument_of(seen[id_].body) for id_ in scheduled] == [f"[{number}]" for number in range(5)]


def test_a_message_that_leaves_between_its_id_and_its_body_is_left_out(broker: RedisBroker) -> None:
    stays, leaves, later = send(broker, "first", 3)
    family = families_of(broker)[0]
    family.calls.command("HDEL", family.keys.bodies, leaves)

    looked = look_through([family])

    assert [(message.id, argument_of(message.body)) for message in looked.messages] == [(stays, "[0]"), (later, "[2]")]


def test_a_queue_with_more_messages_than_are_read_is_named(broker: RedisBroker) -> None:
    first = send(broker, "first", 9)
    second = send(broker, "second", 3)

    looked = look_through(families_of(broker), most=5)

    assert looked.cut == ["first"]
    assert [message.id for message in looked.messages] == first[:5] + second


def argument_of(body: bytes) -> str:
    fields = compared_fields_of(body)
    assert fields is not None
    return bytes(fields.args).decode()


def scores_of(broker: RedisBroker, name: str) -> list[tuple[str, int]]:
    family = broker.lane(name)[0]
    found = family.calls.command("ZRANGE", family.keys.due("live"), 0, -1, "WITHSCORES")
    return [(id_.decode(), int(score)) for id_, score in zip(found[::2], found[1::2], strict=True)]
