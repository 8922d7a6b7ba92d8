"""Bytes in a queue that are no message: quarantined for an operator, without blocking messages."""

from __future__ import annotations

import pickle
import random
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Worker

from switchyard.broker.errors import BrokerRefused
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import Entry
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
    b'{"actor": "chaos_job"}',
    b'{"actor": 1, "sent_at": 1}',
    b'{"actor": "chaos_job", "sent_at": "now"}',
    b'{"actor": "chaos_job", "sent_at": 1, "args": {}}',
    b'{"actor": "chaos_job", "sent_at": 1, "kwargs": []}',
    b'{"actor": "chaos_job", "sent_at": 1, "options": 7}',
    b'{"actor": "chaos_job", "sent_at": 1, "options": {"attempts": "many"}}',
    b'{"actor": "chaos_job", "sent_at": 1, "args": [NaN]}',
    b"[" * 5_000,
]


def put(broker: Any, raw: bytes) -> None:
    """Put bytes that are no message into the queue, past the broker's own encoder."""
    broker.families[QUEUE].enqueue([Entry(uuid.uuid4().hex, raw)])


class Canary:
    """Object whose unpickling creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_rubbish_is_set_aside_and_the_rest_is_done(broker_on: BrokerOn, run_worker: Any, ledger: Ledger) -> None:
    broker = broker_on(SERVER.url)
    generator = random.Random(29)
    rubbish = [*BY_HAND, *(generator.randbytes(generator.randrange(1, 200)) for _ in range(40))]

    with run_worker(broker=broker) as worker, load(broker, ledger) as producers:
        producers.wait_for_accepted(2)
        before = wait_for(lambda: all((found := consumers_of(worker)).values()) and found)
        for raw in rubbish:
            producers.wait_for_accepted(2)
            put(broker, raw)
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
        put(broker, b"\x80\x04rubbish %d" % number)
    enqueue(broker, ledger, "good")

    with run_worker(broker=broker):
        wait_for(lambda: ledger.jobs("completed") == ["good"])

    assert facilities(broker).transport.stats(QUEUE).quarantined == 500


def test_a_pickle_is_never_opened(broker_on: BrokerOn, run_worker: Any, tmp_path: Path) -> None:
    broker, canary = broker_on(SERVER.url), tmp_path / "canary"
    put(broker, pickle.dumps(Canary(str(canary))))

    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats(QUEUE).quarantined == 1)

    assert not canary.exists()


def test_a_key_of_a_wrong_type_is_named_and_harms_no_consumer(
    broker_on: BrokerOn, run_worker: Any, ledger: Ledger, valkey: redis.Redis
) -> None:
    broker = broker_on(SERVER.url)
    waiting = broker.families[QUEUE].keys.waiting("live")[1]

    with run_worker(broker=broker) as worker:
        do_one(broker, ledger, "before")
        valkey.set(waiting, "not a list")
        with pytest.raises(BrokerRefused, match="WRONGTYPE"):
            broker.get_actor("chaos_job").send("never")
        valkey.delete(waiting)
        do_one(broker, ledger, "after")
        alive = all(thread.is_alive() for thread in worker.consumers.values())

    found = ledger.account()
    assert alive
    assert (found.lost, found.duplicated) == ((), ())


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("repeated", [200, pytest.param(100_000, marks=pytest.mark.long)])
def test_an_id_that_is_pushed_again_by_hand_is_run_once_by_its_worker(
    broker_on: BrokerOn, run_worker: Any, ledger: Ledger, valkey: redis.Redis, repeated: int
) -> None:
    broker = broker_on(SERVER.url)
    waiting = broker.families[QUEUE].keys.waiting("live")[1]

    with run_worker(broker=broker):
        for number in range(repeated):
            job = f"twice-{number}."
            enqueue(broker, ledger, job)
            valkey.rpush(waiting, job, job)
        broker.families[QUEUE].notify("live")
        wait_until_drained(broker, 600)
        for number in range(0, repeated, 10):
            valkey.rpush(waiting, f"twice-{number}.")
        broker.families[QUEUE].notify("live")
        wait_until_drained(broker, 600)

    found = ledger.each_once()
    assert len(found.completed) == repeated


def do_one(broker: Any, ledger: Ledger, job: str) -> None:
    enqueue(broker, ledger, job)
    wait_for(lambda: job in ledger.jobs("completed"))


def consumers_of(worker: Worker) -> dict[str, Any]:
    """Return what a worker fetches with; a consumer that is started anew is another."""
    return {name: thread.consumer for name, thread in worker.consumers.items()}
