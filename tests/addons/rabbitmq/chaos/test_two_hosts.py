"""Two hosts on RabbitMQ: one is killed, cut off, or has a wrong clock; none of their jobs is lost."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from switchyard.addons.rabbitmq.broker import on_rabbitmq
from tests.addons.rabbitmq.server import RabbitServer
from tests.chaos.hosts import FAULTS, WRONG_S, Host, TwoHosts, begun_at, running_on, take_over
from tests.chaos.load import FIRST, enqueue, wait_until_drained
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(400)]
# RabbitMQ ends a silent connection after two to three heartbeats of 15 s.
CUT_S = 50.0
# By the fault: a closed connection is seen at once, and a pool that is busy with what waited comes to it later.
TAKEN_OVER_S = {"cut": CUT_S + 5.0}
TAKEN_OVER_AT_ONCE_S = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A RabbitMQ server of this module's own."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq")).start()
    yield server
    server.stop()
    gc.collect()


@pytest.fixture
def two(tmp_path: Path, server: RabbitServer) -> Iterator[TwoHosts]:
    """Hosts whose messages are on RabbitMQ, and whose jobs need no database."""
    two = TwoHosts(tmp_path, 0, place=on_rabbitmq, place_url=server.url)
    yield two
    two.close()


@pytest.mark.long
def test_a_killed_host_loses_nothing(two: TwoHosts) -> None:
    harmed, other = two.add(), two.add()
    for started in [host.start("runpool", "work") for host in two.hosts]:
        started.wait_for_log("pool work: ready", 120)
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


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_the_other_host_takes_over_what_ran(two: TwoHosts, fault: str) -> None:
    moved_s = take_over(two, fault, cut_s=CUT_S, wait_until_done=partial(wait_until_done, two))

    assert moved_s and moved_s[0] <= TAKEN_OVER_S.get(fault, TAKEN_OVER_AT_ONCE_S)


@pytest.mark.long
@pytest.mark.parametrize("fault", sorted(WRONG_S))
def test_a_host_whose_clock_is_wrong_works_beside_another(two: TwoHosts, fault: str) -> None:
    wrong, right = two.add(clock_s=WRONG_S[fault]), two.add()
    for started in [host.start("runpool", "work") for host in (wrong, right)]:
        started.wait_for_log("pool work: ready", 120)

    sent_s = time.monotonic()
    for number in range(40):
        enqueue(two.broker, two.ledger, f"short-{number}.", 20, max_age=55_000)
        enqueue(two.broker, two.ledger, f"later-{number}.", 20, delay_ms=3_000, max_age=55_000)
    wait_for(lambda: len(two.completed()) == 80, what="80 jobs completed, none too old")
    wait_until_done(two)

    assert two.account().duplicated == ()
    assert [bool(host.ledger.jobs("completed")) for host in two.hosts] == [True, True], "both work"
    early = [job for host in two.hosts for job in host.ledger.jobs("started") if is_early(host, job, sent_s)]
    assert early == [], "none before its time"


def wait_until_done(two: TwoHosts) -> None:
    """Wait until every accepted job has completed, and RabbitMQ holds none of them, also not once more."""
    sent = set(two.ledger.jobs("accepted"))
    wait_for(lambda: sent <= two.completed(), what="all jobs completed")
    wait_until_drained(two.broker, 60)


def is_early(host: Host, job: str, sent_s: float) -> bool:
    """Whether a delayed job began before its delay was over."""
    return job.startswith("later-") and begun_at(host, job) < sent_s + 3.0
