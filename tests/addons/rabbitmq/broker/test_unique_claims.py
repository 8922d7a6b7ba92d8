"""Claims of unique keys on the Redis beside RabbitMQ: one sender of several holds a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from dramatiq.actor import Actor

from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.unique_claims import UniqueClaims
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.stores.job_records import JobRecords
from switchyard.middleware.errors import InvalidOption


class Records(JobRecords):
    """Tells that some jobs have succeeded; calls ``meanwhile`` once before an answer is used."""

    def __init__(self, ended: set[str], meanwhile: Callable[[], object] = bool) -> None:
        self.ended, self.meanwhile = ended, meanwhile

    def states(self, job_ids: Sequence[str]) -> list[str | None]:
        answer = ["succeeded" if id_ in self.ended else None for id_ in job_ids]
        meanwhile, self.meanwhile = self.meanwhile, bool
        meanwhile()
        return list(answer)


def test_of_two_senders_after_an_ended_job_one_holds_the_key(valkey: redis.Redis) -> None:
    calls, keys, ended, holders = calls_on(valkey), Keys("test-rabbit"), {"first"}, dict[str, str]()
    other = UniqueClaims(calls, keys, Records(ended))

    def other_sends() -> None:
        holders["second"] = other.claim("work", "one", "second")

    claims = UniqueClaims(calls, keys, Records(ended, other_sends))
    claims.claim("work", "one", "first")

    holders["third"] = claims.claim("work", "one", "third")

    assert holders == {"second": "second", "third": "second"}


def test_a_holder_that_ended_meanwhile_is_replaced(valkey: redis.Redis) -> None:
    calls, keys, ended = calls_on(valkey), Keys("test-rabbit"), {"first"}
    other = UniqueClaims(calls, keys, Records(ended))

    def other_sends_and_ends() -> None:
        other.claim("work", "one", "second")
        ended.add("second")

    claims = UniqueClaims(calls, keys, Records(ended, other_sends_and_ends))
    claims.claim("work", "one", "first")

    assert claims.claim("work", "one", "third") == "third"
    assert claims.claim("work", "one", "fourth") == "third"


def test_a_sender_that_repeats_its_claim_holds_it(valkey: redis.Redis) -> None:
    claims = UniqueClaims(calls_on(valkey), Keys("test-rabbit"), Records(set()))

    assert [claims.claim("work", "one", "first") for _ in range(2)] == ["first", "first"]


@pytest.mark.parametrize("policy", [{"unique_until": "started"}, {"unique_for": 1_000}, {"on_duplicate": "delay"}])
def test_an_actor_with_a_policy_of_its_unique_key_is_refused(valkey: redis.Redis, policy: dict[str, Any]) -> None:
    broker: Any = RabbitBroker("amqp://guest:guest@127.0.0.1:1/", calls_on(valkey), Keys("test-rabbit"))

    with pytest.raises(InvalidOption, match=r"actor job: .*; on RabbitMQ a unique key is held until the job has ended"):
        Actor(lambda: None, broker=broker, actor_name="job", queue_name="work", priority=0, options=policy)

    assert broker.actors == {}
