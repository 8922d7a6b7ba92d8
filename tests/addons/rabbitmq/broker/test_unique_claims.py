"""Claims of unique keys on the Redis beside RabbitMQ: one sender of several holds a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.addons.rabbitmq import unique_claims
from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.unique_claims import UniqueClaims
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.stores.job_records import JobRecords
from switchyard.middleware.errors import InvalidOption
from tests.waiting import wait_for


class Records(JobRecords):
    """Tells that some jobs have succeeded; calls ``meanwhile`` once before an answer is used."""

    def __init__(self, ended: set[str], meanwhile: Callable[[], object] = bool) -> None:
        self.ended, self.meanwhile = ended, meanwhile

    def states(self, job_ids: Sequence[str]) -> list[str | None]:
        answer = ["succeeded" if id_ in self.ended else None for id_ in job_ids]
        meanwhile, self.meanwhile = self.meanwhile, bool
        meanwhile()
        return list(answer)


def send(claims: UniqueClaims, id_: str) -> str:
    """Return the holder of the key once a message was sent with it."""
    with claims.sending(keyed(id_), "work") as holder:
        return holder


def keyed(id_: str) -> Message[Any]:
    return Message("work", "job", (), {}, {"unique_key": "one"}, id_)


def test_of_two_senders_after_an_ended_job_one_holds_the_key(valkey: redis.Redis) -> None:
    calls, keys, ended, holders = calls_on(valkey), Keys("test-rabbit"), {"first"}, dict[str, str]()
    other = UniqueClaims(calls, keys, Records(ended))

    def other_sends() -> None:
        holders["second"] = send(other, "second")

    claims = UniqueClaims(calls, keys, Records(ended, other_sends))
    send(claims, "first")

    holders["third"] = send(claims, "third")

    assert holders == {"second": "second", "third": "second"}


def test_a_holder_that_ended_meanwhile_is_replaced(valkey: redis.Redis) -> None:
    calls, keys, ended = calls_on(valkey), Keys("test-rabbit"), {"first"}
    other = UniqueClaims(calls, keys, Records(ended))

    def other_sends_and_ends() -> None:
        send(other, "second")
        ended.add("second")

    claims = UniqueClaims(calls, keys, Records(ended, other_sends_and_ends))
    send(claims, "first")

    assert send(claims, "third") == "third"
    assert send(claims, "fourth") == "third"


def test_a_sender_that_repeats_its_claim_holds_it(valkey: redis.Redis) -> None:
    claims = UniqueClaims(calls_on(valkey), Keys("test-rabbit"), Records(set()))

    assert [send(claims, "first") for _ in range(2)] == ["first", "first"]


def test_a_send_that_fails_leaves_the_key_to_the_next(rabbit_yard: Any) -> None:
    broker, away = rabbit_yard(), rabbit_yard(url="amqp://guest:guest@127.0.0.1:1/")
    job, unsent = (
        dramatiq.actor(lambda: None, broker=each, queue_name="work", actor_name="job", unique_key="one")
        for each in (broker, away)
    )

    with pytest.raises(BrokerUnavailable):
        unsent.send()
    id_ = job.send().message_id

    assert broker.lane_stats("work").waiting == 1
    assert job.send().message_id == id_


def test_a_key_whose_sender_died_is_not_taken_for_a_message(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unique_claims, "PATIENCE_S", 0.05)
    monkeypatch.setattr(unique_claims, "UNRECORDED_MS", 300)
    claims = UniqueClaims(calls_on(valkey), Keys("test-rabbit"), Records(set()))
    died = claims.sending(keyed("first"), "work")
    died.__enter__()

    with pytest.raises(BrokerUnavailable, match="message first has that key and may not be sent") as refused:
        send(claims, "second")

    assert refused.value.outcome == "refused"
    wait_for(lambda: wait_for_turn(claims) == "third")


def wait_for_turn(claims: UniqueClaims) -> str:
    with suppress(BrokerUnavailable):
        return send(claims, "third")
    return ""


@pytest.mark.parametrize("policy", [{"unique_until": "started"}, {"unique_for": 1_000}, {"on_duplicate": "delay"}])
def test_an_actor_with_a_policy_of_its_unique_key_is_refused(valkey: redis.Redis, policy: dict[str, Any]) -> None:
    broker: Any = RabbitBroker("amqp://guest:guest@127.0.0.1:1/", calls_on(valkey), Keys("test-rabbit"))

    with pytest.raises(InvalidOption, match=r"actor job: .*; on RabbitMQ a unique key is held until the job has ended"):
        Actor(lambda: None, broker=broker, actor_name="job", queue_name="work", priority=0, options=policy)

    assert broker.actors == {}
