"""Faults of a yard on RabbitMQ under load, and of two hosts: nothing is lost, each job that ran twice is explained."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from switchyard.addons.rabbitmq.broker import on_rabbitmq
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from tests.addons.rabbitmq.server import RabbitServer, build_rabbit_yard
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.hosts import FAULTS, WRONG_S, TwoHosts, begun_at, running_on, take_over
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.load import (
    FIRST,
    JOBS_THAT_ARE_DELAYED,
    JOBS_THAT_FAIL_ONCE,
    QUEUE,
    Producers,
    enqueue,
    let_pass,
    load,
    offered_per_s,
    wait_until_drained,
)
from tests.chaos.pools import BRIEF_LEASES, USUAL, Pools, fell_until_buried, kill_five_times, started
from tests.chaos.yard.yards import YARDS
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(900)]
# A login that times out leaves pika's socket to the garbage collection.
SOCKET_LEFT = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
PER_S = 200
LOAD: dict[str, Any] = {"per_s": PER_S, "threads": 4, "ms": 10, "caught_up_s": 1.0}
# Of PER_S, while the server takes jobs; a first send, and those that an outage refused, take longer than their pace.
OFFERED = 0.95
# The server ends a silent connection after two to three heartbeats of 15 s.
DARK_S = 50.0
PoolsOn = Callable[[str], "RabbitPools"]
# Workers connect again after 3 s.
AROUND_S = 5.0
STALE_S = 60.0
UNEXPLAINED = "unexplained"
TWO_COPIES = "was moved twice: the copy was enqueued, the original not acknowledged"
MOVED = (JOBS_THAT_FAIL_ONCE, JOBS_THAT_ARE_DELAYED)
long = pytest.mark.long
# RabbitMQ ends a silent connection after two to three heartbeats of 15 s.
CUT_S = 50.0
# By the fault: a closed connection is seen at once, and a pool that is busy with what waited comes to it later.
TAKEN_OVER_S = {"cut": CUT_S + 5.0}
TAKEN_OVER_AT_ONCE_S = 10.0


@pytest.fixture
def server(tmp_path) -> Iterator[RabbitServer]:
    yield from running(tmp_path / "rabbitmq")


def running(folder: Path) -> Iterator[RabbitServer]:
    server = RabbitServer(folder).start()
    yield server
    server.stop()
    gc.collect()  # here, where the warning of SOCKET_LEFT is ignored, and not when the session ends


@pytest.fixture
def pools_on_rabbitmq(server, valkey_url, ledger, tmp_path) -> Iterator[PoolsOn]:
    """Start real pools of a yard: ``pools_on_rabbitmq("load").start("runpools")``."""
    with contextlib.ExitStack() as stack:
        yield lambda yard: stack.enter_context(RabbitPools(tmp_path, ledger, server, yard, beside=valkey_url))


@pytest.fixture
def rabbit_pools_on(rabbitmq_server, valkey_url, ledger, tmp_path) -> Iterator[PoolsOn]:
    """Start real pools of a yard on the server of all tests, whose queues are emptied."""
    with contextlib.ExitStack() as stack:

        def make(yard: str) -> RabbitPools:
            pools = stack.enter_context(RabbitPools(tmp_path, ledger, rabbitmq_server, yard, beside=valkey_url))
            pools.empty()
            return pools

        yield make


@long
@pytest.mark.filterwarnings(SOCKET_LEFT)
@pytest.mark.parametrize("yard", ["load", "greenlets"])
def test_killed_children_lose_nothing(pools_on_rabbitmq, ledger, yard):
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

    judge("10 children killed", ledger, pools, [(at_s, at_s) for at_s in killed.values()], set(killed))


@long
@pytest.mark.filterwarnings(SOCKET_LEFT)
def test_a_killed_pool_loses_nothing(pools_on_rabbitmq, ledger):
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


@long
@pytest.mark.filterwarnings(SOCKET_LEFT)
def test_a_killed_server_loses_nothing(pools_on_rabbitmq, server, ledger):
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


@long
@pytest.mark.filterwarnings(SOCKET_LEFT)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside-another-pool"])
def test_a_pool_cut_off_for_longer_than_the_heartbeat_loses_nothing(pools_on_rabbitmq, server, ledger, others):
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


class RabbitPools(Pools):
    """Pools of one yard on a RabbitMQ server, with a Valkey beside it.

    Args:
        beside: Address of the Valkey.
    """

    def __init__(self, folder: Path, ledger: Ledger, server: RabbitServer, yard: str, *, beside: str) -> None:
        self._beside = beside
        super().__init__(folder, ledger, server.url, yard)

    def build(self) -> Any:
        return build_rabbit_yard(YARDS[self._yard], connect(self._beside), Keys(), url=self._url)

    def addresses(self, url: str) -> dict[str, str]:
        return {**super().addresses(url), "SWITCHYARD_REDIS_URL": self._beside}

    @property
    def _lanes(self) -> list[str]:
        yard = YARDS[self._yard]
        return [*yard.lanes, *(queue.alone_lane for queue in yard.queues)]

    def empty(self) -> None:
        for lane in self._lanes:
            self.broker.declare_queue(lane)
            self.broker.flush(lane)

    def left(self) -> int:
        """Return how many messages the server has that nothing holds, rejected ones included."""
        queues = self.broker.server_queues
        return sum(self.broker.count((lane, name) for lane in self._lanes for name in queues.every(lane)))

    def suspects(self) -> list[str]:
        return [id_ for queue in YARDS[self._yard].queues for id_ in self.broker.redeliveries.suspects(queue.name)]


def wait_until_completed(ledger: Ledger, stale_s: float = STALE_S) -> None:
    """Wait until every accepted job has completed.

    Raises:
        AssertionError: none completed for so long.
    """
    left, changed_s = -1, time.monotonic()
    while now_left := len(ledger.account().lost):
        if now_left != left:
            left, changed_s = now_left, time.monotonic()
        assert time.monotonic() - changed_s < stale_s, f"{left} jobs have not completed, none in {stale_s:g} s"
        let_pass(0.5)


def why_twice(ledger: Ledger, faults: Sequence[tuple[float, float]], victims: set[int]) -> Counter[str]:
    """Return why jobs completed more than once, each with a count.

    Args:
        faults: Monotonic time at which each began and ended.
        victims: Processes that were killed.
    """
    return Counter(_reason(ledger, job, faults, victims) for job in set(ledger.account().duplicated))


def _reason(ledger: Ledger, job: str, faults: Sequence[tuple[float, float]], victims: set[int]) -> str:
    """Return why a job completed twice; :data:`UNEXPLAINED` where no fault was near any of its runs but the last."""
    starts, ends = ledger.of("started", job), ledger.of("completed", job)
    runs = sorted([*starts[:-1], *ends[:-1]], key=lambda entry: entry.at_s)
    began_s, ended_s = next((fault for fault in faults if _near(runs, *fault)), (0.0, 0.0))
    [accepted] = ledger.of("accepted", job) or ledger.of("attempted", job)
    if not ended_s and job.endswith(MOVED) and any(accepted.at_s < ended_s < starts[0].at_s for _, ended_s in faults):
        return TWO_COPIES  # behind a backlog
    if not ended_s:
        return f"{UNEXPLAINED}: {[(run.phase, run.pid, round(run.at_s - faults[0][0], 2)) for run in [*starts, *ends]]}"
    if any(end.pid in victims and end.at_s <= began_s for end in ends):
        return "had ended in a killed process, which was not noted"
    if any(end.at_s <= began_s for end in ends):
        return "had ended, and its acknowledgement was lost"
    pids = {end.pid for end in ends}
    if any(start.at_s < began_s and start.pid in pids for start in starts):
        return "ran on while another worker got it"
    return TWO_COPIES


def _near(runs: Sequence[Entry], began_s: float, ended_s: float) -> bool:
    """Whether a run began or ended around a fault, or lasted over it."""
    around = any(began_s - AROUND_S <= entry.at_s <= ended_s + AROUND_S for entry in runs)
    return around or (runs[0].at_s < began_s and runs[-1].at_s > ended_s)


@pytest.mark.parametrize(
    ("yard", "ms", "neighbours", "settings"),
    [
        ("one slot", 0, 20, BRIEF_LEASES),
        pytest.param("many greenlets", 200, 200, BRIEF_LEASES, marks=long),
        pytest.param("many greenlets", 0, 200, BRIEF_LEASES, marks=long),
        pytest.param("one slot", 2_000, 200, USUAL, marks=long),
        pytest.param("many greenlets", 2_000, 1_000, USUAL, marks=long),
        pytest.param("threads", 0, 1_000, USUAL, marks=long),
    ],
)
def test_a_message_that_fells_its_container_dies_after_six_rounds_and_no_neighbour_is_blamed(
    rabbit_pools_on, ledger, yard, ms, neighbours, settings
):
    pools = rabbit_pools_on(yard)
    fell_until_buried(
        pools, ledger, ms=ms, neighbours=neighbours, settings=settings,
        wait_until_done=partial(wait_until_completed, ledger),
    )  # fmt: skip
    wait_for(lambda: not pools.suspects(), what="nothing is suspected any more")


@long
@pytest.mark.parametrize(
    ("yard", "jobs", "ms", "settings"),
    [
        ("many greenlets", 300, 100, BRIEF_LEASES),
        ("many greenlets", 1_000, 150, USUAL),
        ("one slot", 1_000, 100, USUAL),
        ("threads", 1_000, 1_000, USUAL),
    ],
)
def test_a_host_that_is_killed_five_times_blames_no_message(rabbit_pools_on, ledger, yard, jobs, ms, settings):
    pools = rabbit_pools_on(yard)
    found = kill_five_times(
        pools, ledger, jobs=jobs, ms=ms, settings=settings, wait_until_done=partial(wait_until_completed, ledger)
    )
    print(f"{len(found.duplicated)} twice")
    wait_for(lambda: not pools.suspects() and pools.left() == 0, what="nothing is left, or suspected")


@pytest.fixture(scope="module")
def hosts_server(tmp_path_factory) -> Iterator[RabbitServer]:
    yield from running(tmp_path_factory.mktemp("rabbitmq"))


@pytest.fixture
def two(tmp_path, hosts_server) -> Iterator[TwoHosts]:
    """Hosts whose messages are on RabbitMQ, and whose jobs need no database."""
    with contextlib.closing(TwoHosts(tmp_path, 0, place=on_rabbitmq, place_url=hosts_server.url)) as two:
        yield two


@long
def test_a_killed_host_loses_nothing(two):
    harmed, other = two.add(), two.add()
    two.start_pools()
    more = (f"long-{number}." for number in itertools.count())

    def both_run() -> bool:
        """Whether jobs run on both hosts; the one that is ready first would take all of a few."""
        enqueue(two.broker, two.ledger, next(more), 1_000, FIRST)
        return all(map(running_on, two.hosts))

    wait_for(both_run, what="jobs run on both hosts")
    running = running_on(harmed)
    harmed.kill()
    wait_until_done(two)

    found = two.account()
    left = running - set(harmed.ledger.jobs("completed"))
    assert left and left <= set(other.ledger.jobs("completed"))
    assert set(found.duplicated) <= set(harmed.ledger.jobs("started")), "twice only where the other host had begun"


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_the_other_host_takes_over_what_ran(two, fault):
    moved_s = take_over(two, fault, cut_s=CUT_S, wait_until_done=partial(wait_until_done, two))

    assert moved_s and moved_s[0] <= TAKEN_OVER_S.get(fault, TAKEN_OVER_AT_ONCE_S)


@long
@pytest.mark.parametrize("fault", sorted(WRONG_S))
def test_a_host_whose_clock_is_wrong_works_beside_another(two, fault):
    two.add(clock_s=WRONG_S[fault])
    two.add()
    two.start_pools()

    sent_s = time.monotonic()
    for number in range(40):
        enqueue(two.broker, two.ledger, f"short-{number}.", 20, max_age=55_000)
        enqueue(two.broker, two.ledger, f"later-{number}.", 20, delay_ms=3_000, max_age=55_000)
    wait_for(lambda: len(two.completed()) == 80, what="80 jobs completed, none too old")
    wait_until_done(two)

    assert two.account().duplicated == ()
    assert [bool(host.ledger.jobs("completed")) for host in two.hosts] == [True, True], "both work"
    delayed = [(host, job) for host in two.hosts for job in host.ledger.jobs("started") if job.startswith("later-")]
    assert [job for host, job in delayed if begun_at(host, job) < sent_s + 3.0] == [], "none before its time"


def wait_until_done(two: TwoHosts) -> None:
    """Wait until every accepted job has completed, and RabbitMQ holds none of them, also not once more."""
    sent = set(two.ledger.jobs("accepted"))
    wait_for(lambda: sent <= two.completed(), what="all jobs completed")
    wait_until_drained(two.broker, 60)
