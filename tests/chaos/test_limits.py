"""Limits on what runs at once, and batches, under kills: never one too many, none stuck, each callback once."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from switchyard.batches.services import NewBatch
from switchyard.broker.interface import facilities
from switchyard.broker.stores.batches import batch_of
from tests.chaos.linked_jobs import (
    ADDED,
    AT_ONCE,
    declare_batch_jobs,
    declare_limited_jobs,
    first_starts,
    most_at_once,
    send_batch,
)
from tests.chaos.load import QUEUE, wait_until_drained
from tests.chaos.pools import Pools, RunningPool
from tests.chaos.server import ServerUnderTest, server_binary
from tests.chaos.test_killed_processes import workers
from tests.factories.brokers import the_global_broker
from tests.processes import wait_for_end
from tests.sentinels import Watched
from tests.waiting import wait_for

long = pytest.mark.long
SIZE = 20
ASIDE = "aside"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("keys", "jobs", "kills", "supervisors"),
    [(3, 90, 2, 0), pytest.param(5, 400, 10, 1, marks=long), pytest.param(2_000, 10_000, 10, 1, marks=long)],
)
def test_no_kill_leaves_a_place_taken_or_gives_one_too_many(pools, ledger, keys, jobs, kills, supervisors):
    actors = declare_limited_jobs(pools.broker, ledger)
    pool = pools.start("runpool", "work")
    chosen, died_s = random.Random(5), dict[int, float]()
    sent = []
    for number in range(jobs):
        key, kind = f"k{number % keys}", actors.limited
        if number % 3 == 0:
            key, kind = f"o{number % keys}", actors.ordered
        ledger.note("accepted", f"{key}.{number}")
        sent.append(kind.message(key, f"{key}.{number}", 20))
    pools.broker.enqueue_many(sent)
    began_s = time.monotonic()

    def ended() -> int:
        return len(ledger.jobs("completed"))

    for number in range(1, kills + 1):
        wait_for(lambda due=number: ended() >= jobs * due // (kills + 2))
        victim = chosen.choice(sorted(wait_for(lambda: workers(pool) - set(died_s))))
        died_s[victim] = time.monotonic()
        os.kill(victim, signal.SIGKILL)
    for _ in range(supervisors):
        wait_for(lambda: ended() >= jobs * (kills + 1) // (kills + 2))
        below = list(pool.children().values())
        pool.process.kill()
        for pid in below:
            wait_for_end(pid, 60)
        died_s.update(dict.fromkeys(below, time.monotonic()))
        pool = pools.start("runpool", "work")
    wait_until_drained(pools.broker, 300)

    most, found = most_at_once(ledger, died_s), ledger.account()
    print(f"{jobs} jobs of {keys} keys in {time.monotonic() - began_s:.1f} s, at most {most.most_common(3)} at once")
    assert found.lost == ()
    assert max(most.values()) <= AT_ONCE
    assert max(count for key, count in most.items() if key.startswith("o")) == 1
    for key in most:
        assert not key.startswith("o") or first_starts(ledger, key) == sorted(first_starts(ledger, key))
    family = pools.broker.lane(QUEUE)[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)


@pytest.fixture(params=["killed, its file synced each second", "replaced by a sentinel"])
def lossy(request, tmp_path, server_name) -> Iterator[tuple[str, Callable[[], object]]]:
    """The address of a server, and an act after which it may have forgotten its last writes."""
    if request.param.startswith("killed"):
        with ServerUnderTest(tmp_path / "server", server_binary(server_name)) as server:
            server.config_set("appendfsync", "everysec")
            yield server.url, server.restart
    else:
        with Watched(tmp_path / "sentinels", server_binary(server_name), down_ms=4_000) as servers:

            def fail_over() -> None:
                former = servers.master
                former.kill()
                wait_for(lambda: servers.master is not former)
                former.restart()
                servers.wait_until_settled()

            yield servers.url, fail_over


@long
@pytest.mark.timeout(900)
def test_a_server_that_forgets_its_last_writes_leaves_no_place_taken(pools_on, lossy, ledger):
    url, forget = lossy
    pools = pools_on("threads", url)
    limited = declare_limited_jobs(pools.broker, ledger).limited
    pools.start("runpool", "work")
    sent = []
    for number in range(900):
        ledger.note("accepted", f"k{number % 30}.{number}")
        sent.append(limited.message(f"k{number % 30}", f"k{number % 30}.{number}", 50))
    pools.broker.enqueue_many(sent)

    for number in range(1, 4):
        wait_for(lambda due=number: len(ledger.jobs("completed")) >= 200 * due)
        forget()
    wait_until_drained(pools.broker, 300)

    most, found = most_at_once(ledger, {}), ledger.account()
    over = {key: count for key, count in most.items() if count > AT_ONCE}
    print(f"900 jobs of 30 keys: {len(found.lost)} lost, {len(found.duplicated)} ran twice, over their limit: {over}")
    family = pools.broker.lane(QUEUE)[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)
    assert found.lost == ()


@pytest.fixture
def batch_pools(pools_on, valkey_url, process_environment, monkeypatch) -> Iterator[Pools]:
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
    left = len(made)
    while left:
        wait_for(lambda: len(open_batches(broker, made)) < left, still_s, what=f"one of {left} batches ends")  # noqa: B023
        left = len(open_batches(broker, made))


@pytest.mark.usefixtures("valkey")
@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("batches", "kills"), [(50, 6), pytest.param(1_000, 60, marks=pytest.mark.long)])
def test_each_callback_is_enqueued_once_whatever_is_killed(batch_pools, ledger, batches, kills):
    pools, broker, chance = batch_pools, batch_pools.broker, random.Random(39)
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


@pytest.mark.usefixtures("valkey")
@pytest.mark.django_db(transaction=True)
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_batch_of_100_000_members(batch_pools, ledger):
    pools, broker = batch_pools, batch_pools.broker
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
