"""Leases of a worker without a supervisor: what it lost it does not start, and a slow server costs one tick."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.leases import SelfManagedLeases
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from tests.chaos.fault_proxy import FaultProxy
from tests.waiting import wait_for


def test_messages_that_wait_for_a_thread_are_not_started_once_their_lease_is_lost(
    broker: RedisBroker,
    run_worker: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.05)
    started: Counter[int] = Counter()
    go_on = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        started[number] += 1
        go_on.wait(60)

    for number in range(3):
        job.send(number)
    family = broker.families["work"]

    with run_worker("work", broker=broker, threads=1):
        wait_for(lambda: started[0] and sum(len(family.held(owner)) for owner in family.owners()) >= 2)
        [lost] = [owner for owner in family.owners() if family.held(owner)]
        family.reclaim(lost)
        wait_for(lambda: f"{lost} lost its lease" in caplog.text)
        go_on.set()
        wait_for(lambda: min(started[number] for number in range(3)) > 0)
        wait_for(lambda: not family.calls.command("HLEN", family.keys.bodies))

    assert started == {0: 2, 1: 1, 2: 1}
    assert caplog.text.count(f"{lost} lost its lease: others have its messages now") == 1


def test_a_server_that_is_away_costs_one_tick_however_many_lanes_there_are(
    valkey: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.broker.queue.leases.RENEW_S", 0.05)
    keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
    with FaultProxy(int(valkey_url.rsplit(":", 1)[1].split("/")[0])) as proxy:
        client = connect(proxy.url, profile="quick")
        leases = SelfManagedLeases(client, lost=lambda owner: None)
        calls = RedisCalls(client)
        for number in range(8):
            leases.owner(QueueOperations(calls, keys.queue(f"queue{number}")), "live")
        proxy.blackhole()

        longest_s, until_s = 0.0, time.monotonic() + 2.5
        while (began_s := time.monotonic()) < until_s:
            leases.drop("of somebody else")
            longest_s = max(longest_s, time.monotonic() - began_s)

        proxy.pass_()
        leases.stop()
        calls.close()
    assert longest_s < 4, "one lane after the other it takes 8 s"


def test_every_lane_has_an_owner_of_its_own_until_the_worker_stops(valkey: redis.Redis) -> None:
    family = QueueOperations(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))
    leases = SelfManagedLeases(valkey, lost=lambda owner: None)

    owners = [leases.owner(family, "live"), leases.owner(family, "retry")]

    assert [leases.owner(family, "live"), leases.owner(family, "retry")] == owners
    assert sorted(family.owners()) == sorted(owners)
    leases.drop(owners[0])
    assert leases.owner(family, "live") != owners[0]
    leases.stop()
    assert family.owners() == []
