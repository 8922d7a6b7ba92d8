"""A network that resets, swallows, stalls and drops connections loses no accepted work."""

from __future__ import annotations

import random
import time
from math import inf
from typing import Any

import psutil
import pytest
from dramatiq import Worker

from tests.chaos.conftest import BrokerOn
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, let_pass, load, wait_until_drained
from tests.environment import SERVER
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("soon_again", "valkey")
long = pytest.mark.long


# A loop without a pause makes hundreds of connections a second, and takes all of a core.
@pytest.mark.parametrize(
    ("storm_s", "most_per_s", "most_percent"), [(2, 100, 95), pytest.param(60, 20, 50, marks=long)]
)
def test_a_storm_of_resets_loses_nothing_and_leaks_nothing(
    proxy: FaultProxy,
    broker_on: BrokerOn,
    run_worker: Any,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    storm_s: float,
    most_per_s: float,
    most_percent: float,
) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 3.0)  # as in a deployment
    broker = broker_on(proxy.url)
    pause = random.Random(23)

    with run_worker(broker=broker), load(broker, ledger) as producers:
        producers.wait_for_accepted(60)
        process = psutil.Process()
        open_files, threads, connections = process.num_fds(), process.num_threads(), proxy.accepted_count
        process.cpu_percent()
        began_s = time.monotonic()
        while time.monotonic() < began_s + storm_s:
            proxy.reset()
            let_pass(pause.uniform(0.05, 0.2))
        cpu_percent = process.cpu_percent()
        connects_per_s = (proxy.accepted_count - connections) / (time.monotonic() - began_s)
        producers.wait_for_accepted(60)
        wait_for(lambda: process.num_threads() - threads <= 2, what="no thread more than two is left")
        wait_for(lambda: process.num_fds() - open_files <= 10, what="no file more than ten is left")
        producers.finish(0)

    print(f"{connects_per_s:.0f} connects a second, {cpu_percent:.0f} % of a core, the proxy's share included")
    found = ledger.none_lost()
    assert found.duplicated == (), "neither enqueued nor run twice"
    assert connects_per_s <= most_per_s
    assert cpu_percent < most_percent


@pytest.mark.parametrize("verb", ["drop_reply", "cut_mid_frame"])
def test_answers_that_a_worker_never_gets_lose_nothing(
    proxy: FaultProxy, broker_on: BrokerOn, run_worker: Any, ledger: Ledger, verb: str
) -> None:
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker), load(broker, ledger) as producers:
        for met_count in range(20):
            producers.wait_for_accepted(10)
            getattr(proxy, verb)(1)
            wait_for(lambda met_count=met_count: proxy.faults_met_count > met_count)
        producers.finish(0)

    ledger.none_lost()


@pytest.mark.parametrize("dark_s", [1, pytest.param(20, marks=long)])
def test_a_worker_goes_on_without_restart_after_a_blackhole(
    proxy: FaultProxy, broker_on: BrokerOn, run_worker: Any, ledger: Ledger, dark_s: float
) -> None:
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker) as worker:
        do_jobs(broker, ledger, "before")
        proxy.blackhole()
        wait_for(lambda: proxy.swallowed_bytes > 0)
        for number in range(20):
            enqueue(broker, ledger, f"dark-{number}")
        let_pass(dark_s)
        completed_in_the_dark = [job for job in ledger.jobs("completed") if job.startswith("dark")]
        proxy.pass_()
        healed_s = time.monotonic()
        wait_until_drained(broker)
        back_s = time.monotonic() - healed_s
        everyone_lives = all_alive(worker)

    print(f"drained {back_s:.2f} s after the heal")
    assert completed_in_the_dark == []
    ledger.none_lost()
    assert everyone_lives


@pytest.mark.parametrize("within_s", [inf, pytest.param(15, marks=long)])
def test_a_worker_notices_that_its_peer_has_vanished(
    proxy: FaultProxy, broker_on: BrokerOn, run_worker: Any, ledger: Ledger, within_s: float
) -> None:
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker) as worker:
        do_jobs(broker, ledger, "before")
        proxy.half_open()
        vanished_s = time.monotonic()
        enqueue(broker, ledger, "after")
        wait_for(lambda: "after" in ledger.jobs("completed"))
        noticed_s = time.monotonic() - vanished_s
        everyone_lives = all_alive(worker)
        wait_until_drained(broker)

    print(f"noticed within {noticed_s:.1f} s")
    ledger.none_lost()
    assert noticed_s <= within_s
    assert everyone_lives


def test_a_slow_network_costs_time_and_nothing_else(
    proxy: FaultProxy, broker_on: BrokerOn, run_worker: Any, ledger: Ledger
) -> None:
    broker = broker_on(proxy.url)
    proxy.delay(10, jitter_ms=10)
    proxy.rate(64_000)

    with run_worker(broker=broker):
        do_jobs(broker, ledger, "slow")

    ledger.each_once()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=long)])
def test_an_enqueue_whose_answer_is_lost_is_there_exactly_once(
    proxy: FaultProxy, broker_on: BrokerOn, run_worker: Any, ledger: Ledger, count: int
) -> None:
    broker, worker_broker = broker_on(proxy.url), broker_on(SERVER.url)
    assert enqueue(broker, ledger, "connected")

    for number in range(count - 1):
        job = f"drop-{number}"
        if number % 20 == 0:
            proxy.drop_reply(of=b'["%s"' % job.encode())  # the message itself, not what is noted about it
        assert enqueue(broker, ledger, job)
    keys = worker_broker.families[QUEUE].keys
    there = [worker_broker.client.hlen(keys.bodies), worker_broker.client.llen(keys.waiting("live")[1])]
    with run_worker(broker=worker_broker):
        wait_until_drained(worker_broker, 300)

    found = ledger.account()
    assert proxy.faults_met_count == -(-(count - 1) // 20)
    assert there == [count, count], "one body and one place for each id"
    assert (found.lost, found.duplicated, found.unexpected) == ((), (), ())
    assert len(found.accepted) == len(found.completed) == count


def do_jobs(broker: Any, ledger: Ledger, name: str, count: int = 10) -> None:
    """Enqueue some jobs and wait until they are done."""
    for number in range(count):
        enqueue(broker, ledger, f"{name}-{number}")
    wait_until_drained(broker)


def all_alive(worker: Worker) -> bool:
    """Return whether every thread that a worker started still runs."""
    return all(thread.is_alive() for thread in (*worker.workers, *worker.consumers.values()))
