"""Faults of a yard on RabbitMQ under 200 jobs a second: nothing is lost, and each job that ran twice is explained."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.interface import facilities
from tests.addons.rabbitmq.chaos.rabbit_pools import UNEXPLAINED, RabbitPools, wait_until_completed, why_twice
from tests.addons.rabbitmq.server import RabbitServer
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.ledger import Ledger
from tests.chaos.load import FIRST, QUEUE, Producers, enqueue, let_pass, load, offered_per_s
from tests.chaos.pools import started
from tests.waiting import wait_for

# A login that times out leaves pika's socket to the garbage collection.
SOCKET_LEFT = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
pytestmark = [
    pytest.mark.usefixtures("valkey"),
    pytest.mark.long,
    pytest.mark.filterwarnings(SOCKET_LEFT),
    pytest.mark.timeout(900),
]

PER_S = 200
LOAD: dict[str, Any] = {"per_s": PER_S, "threads": 4, "ms": 10, "caught_up_s": 1.0}
# Of PER_S, while the server takes jobs; a first send, and those that an outage refused, take longer than their pace.
OFFERED = 0.95
# The server ends a silent connection after two to three heartbeats of 15 s.
DARK_S = 50.0
PoolsOn = Callable[[str], "RabbitPools"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RabbitServer]:
    """A RabbitMQ server of this test's own."""
    server = RabbitServer(tmp_path / "rabbitmq").start()
    yield server
    server.stop()
    gc.collect()  # here, where the warning of SOCKET_LEFT is ignored, and not when the session ends


@pytest.fixture
def pools_on_rabbitmq(server: RabbitServer, valkey_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[PoolsOn]:
    """Start real pools of a yard: ``pools_on_rabbitmq("load").start("runpools")``."""
    made: list[RabbitPools] = []

    def make(yard: str) -> RabbitPools:
        made.append(RabbitPools(tmp_path, ledger, server, yard, beside=valkey_url))
        return made[-1]

    yield make
    for pools in made:
        pools.stop_all()


@pytest.mark.parametrize("yard", ["load", "greenlets"])
def test_killed_children_lose_nothing(pools_on_rabbitmq: PoolsOn, ledger: Ledger, yard: str) -> None:
    pools = pools_on_rabbitmq(yard)
    pool = pools.start("runpools")
    chosen, killed = random.Random(11), dict[int, float]()

    with load(pools.broker, ledger, **LOAD) as producers:
        began_s = time.monotonic()
        for _ in range(10):
            let_pass(2)
            alive = sorted(pid for title, pid in pool.children().items() if " child" in title and pid not in killed)
            victim = chosen.choice(alive)
            os.kill(victim, signal.SIGKILL)
            killed[victim] = time.monotonic()
        let_pass(2)
        finish(producers, began_s, ledger, pools)

    faults = [(at_s, at_s) for at_s in killed.values()]
    judge("10 children killed", ledger, pools, faults, set(killed))


def test_a_killed_pool_loses_nothing(pools_on_rabbitmq: PoolsOn, ledger: Ledger) -> None:
    pools = pools_on_rabbitmq("load")
    pool = pools.start("runpools")
    faults, victims = list[tuple[float, float]](), set[int]()

    with load(pools.broker, ledger, **LOAD) as producers:
        began_s = time.monotonic()
        for _ in range(3):
            producers.wait_for_accepted(400, 60)
            victims |= {pool.pid, *pool.children().values()}
            at_s = time.monotonic()
            pool.signal_all(signal.SIGKILL)
            faults.append((at_s, time.monotonic()))
            pool = pools.start("runpools")
        producers.wait_for_accepted(400, 60)
        finish(producers, began_s, ledger, pools)

    judge("a pool killed 3 times, its supervisor first", ledger, pools, faults, victims)


def test_a_killed_server_loses_nothing(pools_on_rabbitmq: PoolsOn, server: RabbitServer, ledger: Ledger) -> None:
    pools = pools_on_rabbitmq("load")
    pools.start("runpools")
    faults = list[tuple[float, float]]()

    with load(pools.broker, ledger, **LOAD) as producers:
        began_s = time.monotonic()
        for number in range(3):
            producers.wait_for_accepted(400, 60)
            through = f"through-{number}."
            enqueue(pools.broker, ledger, through, 5_000, FIRST)
            started(ledger, through, timeout_s=30)
            at_s = time.monotonic()
            server.kill()
            let_pass(1)
            server.start()
            before = len(ledger.jobs("completed"))
            wait_for(lambda before=before: len(ledger.jobs("completed")) > before + 100, 90)
            faults.append((at_s, time.monotonic()))
            print(f"100 jobs completed {faults[-1][1] - at_s:.1f} s after the kill")
        producers.wait_for_accepted(400, 60)
        finish(producers, began_s, ledger, pools, away=faults)

    judge("the server killed 3 times", ledger, pools, faults, set())


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside-another-pool"])
def test_a_pool_cut_off_for_longer_than_the_heartbeat_loses_nothing(
    pools_on_rabbitmq: PoolsOn, server: RabbitServer, ledger: Ledger, others: bool
) -> None:
    pools = pools_on_rabbitmq("load")

    with FaultProxy(server.port) as proxy:
        pools.start("runpools", url=server.url.replace(str(server.port), str(proxy.port)))
        if others:
            pools.start("runpools")
        with load(pools.broker, ledger, **LOAD) as producers:
            began_s = time.monotonic()
            for number in range(2):
                enqueue(pools.broker, ledger, f"through-{number}.", int(DARK_S - 5) * 1_000, FIRST)
            producers.wait_for_accepted(400, 60)
            at_s = time.monotonic()
            proxy.blackhole()
            let_pass(DARK_S)
            proxy.pass_()
            faults = [(at_s, time.monotonic())]
            producers.wait_for_accepted(400, 60)
            finish(producers, began_s, ledger, pools)

    judge(f"cut off for {DARK_S:g} s", ledger, pools, faults, set())


def finish(
    producers: Producers, began_s: float, ledger: Ledger, pools: RabbitPools, away: Sequence[tuple[float, float]] = ()
) -> None:
    """Stop sending, wait until all is done, and drain the pools: the server then has whatever would run once more.

    Args:
        away: Times at which the server was down, until jobs completed again. A sender waits for each confirmation, and
            2 s for a server that is away, so that nobody can offer the rate meanwhile.
    """
    ended_s = time.monotonic()
    producers.stop()
    rate = offered_per_s(ledger.entries(), began_s, ended_s, away)
    over_all = producers.accepted_count / (ended_s - began_s)
    print(
        f"{rate:.0f} jobs/s while the server took them, {over_all:.0f} over all; {producers.refused_count} refused, "
        f"server away for {', '.join(f'{back_s - left_s:.1f}' for left_s, back_s in away) or 0} s"
    )
    assert rate >= OFFERED * PER_S, f"too little load to say anything: {rate:.0f} jobs/s, the host is too busy"
    wait_until_completed(ledger)
    wait_for(lambda: pools.left() == 0, what="the server has nothing left")
    pools.drain_all()
    wait_for(lambda: pools.left() == 0, what="nothing came back from the drained pools")


def judge(fault: str, ledger: Ledger, pools: Any, faults: list[tuple[float, float]], victims: set[int]) -> None:
    """Print the account, and fail where a job was lost, or ran twice for no reason."""
    found, why = ledger.account(), why_twice(ledger, faults, victims)
    print(f"{fault}: {len(found.accepted)} jobs, {len(found.lost)} lost, {len(found.duplicated)} twice: {dict(why)}")
    assert (found.lost, found.unexpected) == ((), ())
    assert not [reason for reason in why if reason.startswith(UNEXPLAINED)]
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    assert pools.left() == 0
