"""Batches whose workers, supervisors and schedulers are killed: each callback is enqueued once, and every one ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from switchyard.batches.services import NewBatch
from switchyard.broker.interface import facilities
from switchyard.broker.stores.batches import batch_of
from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.linked_jobs import ADDED, declare_batch_jobs, send_batch
from tests.chaos.load import QUEUE
from tests.chaos.pools import Pools, RunningPool
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.django_db(transaction=True)]
SIZE = 20
ASIDE = "aside"


@pytest.fixture
def pools(
    pools_on: PoolsOn, valkey_url: str, process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pools]:
    monkeypatch.setenv("DATABASE_URL", process_environment["DATABASE_URL"])
    pools = pools_on("batches", valkey_url)
    with the_global_broker(pools.broker):
        yield pools


def scheduler(pools: Pools) -> RunningPool:
    return pools.start("switchyard", "runscheduler", ready=False)


def callbacks(broker: Any) -> list[tuple[str, str]]:
    """Return name and callback of each that was enqueued, as often as it was: nothing fetches there."""
    family, _ = broker.lane(ASIDE)
    ids = family.calls.command("LRANGE", family.keys.waiting("live")[1], 0, -1)
    found = [facilities(broker).transport.find_message(ASIDE, str(id_, "ascii")) for id_ in ids]
    return [(message.args[0], message.args[1]) for message in found if message is not None]


def open_batches(broker: Any, made: list[NewBatch]) -> list[str]:
    store = facilities(broker).batches
    return [found.id for found in store.read([each.id for each in made]) if found is not None and found.state == "open"]


def wait_until_ended(broker: Any, made: list[NewBatch], still_s: float) -> None:
    """Wait until every batch has ended; fail when none did for so long."""
    left = len(made)
    while left:

        def fewer(before: int = left) -> bool:
            return len(open_batches(broker, made)) < before

        wait_for(fewer, still_s, what=f"one of {left} batches ends")
        left = len(open_batches(broker, made))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("batches", "kills"), [(50, 6), pytest.param(1_000, 60, marks=pytest.mark.long)])
def test_each_callback_is_enqueued_once_whatever_is_killed(
    pools: Pools, ledger: Ledger, batches: int, kills: int
) -> None:
    chance = random.Random(39)
    broker = pools.broker
    members, called = declare_batch_jobs(broker, ledger, (QUEUE, "brief"), ASIDE)
    running = {"work": pools.start("runpool", "work"), "retries": pools.start("runpool", "retries")}
    running["scheduler"] = scheduler(pools)
    began_s = time.monotonic()
    made = [
        send_batch(members, called, f"batch-{number}{'-fails' if number % 2 else ''}", SIZE, ms=20)
        for number in range(batches)
    ]
    killed = Counter[str]()
    for number in range(kills):
        step = batches * SIZE * (number + 1) // (kills + 2)
        wait_for(lambda step=step: len(set(ledger.jobs("completed"))) >= step, 120, what=f"{step} members are done")
        kind = ("child", "child", "scheduler", "child", "child", "supervisor")[number % 6]
        killed[kind] += 1
        if kind == "child":
            victims = [pid for pool in ("work", "retries") for pid in running[pool].children().values()]
            with suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        elif kind == "scheduler":
            running["scheduler"].kill()
            running["scheduler"] = scheduler(pools)
        else:
            running["work"].kill()
            running["work"] = pools.start("runpool", "work")
    wait_until_ended(broker, made, 120)
    ended_s = time.monotonic() - began_s
    store = facilities(broker).batches
    records = {found.name: found for found in store.read([each.id for each in made]) if found is not None}
    expected = Counter[tuple[str, str]]()
    for name, record in records.items():
        expected[name, "on_complete"] = 1
        expected[name, "on_failure" if record.failed else "on_success"] = 1
    wait_for(lambda: Counter(callbacks(broker)) == expected, 30, what="every callback, once")
    looked_after = store.to_look_at(9)

    done = sum(record.done for record in records.values())
    failed = sum(record.failed for record in records.values())
    print(f"{batches} batches in {ended_s:.1f} s: {done} done, {failed} failed, killed {dict(killed)}")
    assert len(records) == batches
    assert {record.total for record in records.values()} == {SIZE + ADDED}
    assert all(record.failed >= 1 for name, record in records.items() if name.endswith("-fails"))
    assert failed <= batches // 2 + kills, "what is killed three times is dead as well"
    assert not [id_ for id_ in looked_after if batch_of(id_)]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_batch_of_100_000_members(pools: Pools, ledger: Ledger) -> None:
    broker = pools.broker
    members, called = declare_batch_jobs(broker, ledger, (QUEUE, "brief"), ASIDE)
    began_s = time.monotonic()
    made = send_batch(members, called, "large", 100_000)
    sent_s = time.monotonic() - began_s
    used = int(broker.client.info("memory")["used_memory"])
    pools.start("runpool", "work")
    pools.start("runpool", "retries")
    scheduler(pools)
    started_s = time.monotonic()
    wait_until_ended(broker, [made], 600)
    ended_s = time.monotonic() - started_s
    wait_for(lambda: len(callbacks(broker)) == 2, 30, what="both callbacks")
    found = made.progress()
    size = sum(
        broker.client.memory_usage(key) or 0
        for key in (broker.keys.batch(made.id), *broker.keys.batch_members(made.id))
    )

    print(f"100,000 members: sent in {sent_s:.1f} s, done {ended_s:.1f} s after the pools were ready; ", end="")
    print(f"{size / 1e6:.1f} MB of the batch, {used / 1e6:.0f} MB with all messages waiting")
    assert (found.done, found.failed, found.open) == (100_000 + ADDED, 0, 0)
    assert Counter(callbacks(broker)) == {("large", "on_success"): 1, ("large", "on_complete"): 1}
