"""Bytes in a queue that are no message: set aside where a person sees them, in nobody's way."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from dramatiq import Worker
from dramatiq.message import Message

from broker.interface import facilities
from tests.chaos.conftest import BrokerOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, load, wait_until_drained
from tests.environment import SERVER
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("soon_again", "valkey")

KEPT_BYTES = 4_096
BY_HAND = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe\x00",
    b'{"queue_name": "work"}',
    b'{"queue_name": 1, "actor_name": "chaos_job", "args": [], "kwargs": {}, "options": {}, "message_id": "x"}',
    b'{"queue_name": "elsewhere", "actor_name": "chaos_job", "args": [], "kwargs": {}, "options": {},'
    b' "message_id": "x", "message_timestamp": 1}',
    b"[" * 5_000,
]


@dataclass(frozen=True)
class Rubbish(Message[Any]):
    """A message whose encoder has gone mad: any broker takes it, nobody can read it."""

    raw: bytes = b""

    def encode(self) -> bytes:
        """Return what is no message."""
        return self.raw


def test_rubbish_is_set_aside_and_the_rest_is_done(broker_on: BrokerOn, run_worker: Any, ledger: Ledger) -> None:
    broker = broker_on(SERVER.url)
    generator = random.Random(29)
    rubbish = [*BY_HAND, *(generator.randbytes(generator.randrange(1, 200)) for _ in range(40))]

    with run_worker(broker=broker) as worker, load(broker, ledger) as producers:
        producers.wait_for_accepted(2)
        before = consumers_of(worker)
        for raw in rubbish:
            producers.wait_for_accepted(2)
            broker.enqueue(Rubbish(QUEUE, "chaos_job", ("rubbish",), {}, {}, raw=raw))
        producers.wait_for_accepted(20)
        producers.stop()
        wait_for(lambda: facilities(broker).transport.stats(QUEUE).quarantined == len(rubbish))
        wait_until_drained(broker)
        after = consumers_of(worker)

    found = ledger.account()
    kept = facilities(broker).transport.unreadable(QUEUE, limit=100).items
    assert (found.lost, found.duplicated, found.unexpected) == ((), (), ())
    assert sorted((item.size_bytes, item.raw) for item in kept) == sorted(
        (len(raw), raw[:KEPT_BYTES]) for raw in rubbish
    )
    assert after == before, "no consumer was started anew"


def test_rubbish_of_a_gone_release_does_not_hold_up_the_next_job(
    broker_on: BrokerOn, run_worker: Any, ledger: Ledger, valkey: redis.Redis
) -> None:
    broker = broker_on(SERVER.url)
    for number in range(500):
        broker.enqueue(Rubbish(QUEUE, "chaos_job", ("rubbish",), {}, {}, raw=b"\x80\x04rubbish %d" % number))
    enqueue(broker, ledger, "good")

    with run_worker(broker=broker):
        wait_for(lambda: ledger.jobs("completed") == ["good"])

    assert facilities(broker).transport.stats(QUEUE).quarantined == 500


def consumers_of(worker: Worker) -> dict[str, Any]:
    """Return what a worker fetches with; a consumer that is started anew is another."""
    return {name: thread.consumer for name, thread in worker.consumers.items()}
