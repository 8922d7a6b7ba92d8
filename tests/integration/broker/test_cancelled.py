"""Messages that are cancelled while they wait: they hold up nothing, neither their unique key nor the server."""

from __future__ import annotations

import pytest
import redis

from switchyard.broker.admin.purge import relocate
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    """A queue family with one owner, ``worker/live``."""
    found = QueueOperations(RedisCalls(valkey), Keys(prefix="cancelled").queue("q"))
    found.join("worker/live")
    return found


def test_the_unique_key_of_a_cancelled_message_is_free(family: QueueOperations) -> None:
    family.enqueue([Entry("first", b"1", "a-key")])

    assert administration.cancel(family, {"first": b""})["first"] == "cancelled"

    assert family.enqueue([Entry("second", b"2", "a-key")]) == ["second"]
    assert [grant.lease.id for grant in family.fetch("worker/live", 5, request=1).grants] == [b"second"]
    assert family.enqueue([Entry("third", b"3", "a-key")]) == ["second"]


def test_a_long_row_of_cancelled_messages_is_dropped_in_bounded_calls(family: QueueOperations) -> None:
    ids = [f"message-{number}" for number in range(1_200)]
    family.enqueue([Entry(id_, b"") for id_ in ids])
    for id_ in ids:
        administration.cancel(family, {id_: b""})
    family.enqueue([Entry("last", b"")])

    answers = [family.fetch("worker/live", 1, request=request) for request in (1, 2, 3)]

    assert [len(answer.grants) for answer in answers] == [0, 0, 1]
    assert [answer.left for answer in answers] == [True, True, False]
    assert answers[2].grants[0].lease.id == b"last"


def test_a_cancelled_message_is_not_relocated_to_where_it_would_start(family: QueueOperations) -> None:
    target = QueueOperations(family.calls, Keys(prefix="cancelled").queue("other"))
    target.join("worker/live")
    body = b'{"actor":"an_actor","sent_at":1}'
    family.enqueue([Entry("wanted", body), Entry("cancelled", body)])
    administration.cancel(family, {"cancelled": b""})

    *_, told = relocate(family, target, actor="an_actor")

    assert (told.looked_at, told.moved) == (2, 1)
    assert [grant.lease.id for grant in target.fetch("worker/live", 5, request=1).grants] == [b"wanted"]
    assert family.fetch("worker/live", 5, request=1).grants == []
    assert administration.cancel(family, {"cancelled": b""})["cancelled"] == "was cancelled"
