"""A primary that is lost and a replica that is promoted: work goes on, and what was lost is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.workers.preflight import Watch
from tests.chaos.conftest import BrokerOn
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.ledger import Ledger
from tests.chaos.load import load
from tests.chaos.server import ServerUnderTest, connect_once, server_binary
from tests.waiting import wait_for

long = pytest.mark.long


@pytest.fixture
def replica(server: ServerUnderTest, server_name: str, tmp_path: Path) -> Iterator[ServerUnderTest]:
    with ServerUnderTest(tmp_path / "replica", server_binary(server_name)) as replica:
        follow(replica, server)
        yield replica


@pytest.fixture
def address(server: ServerUnderTest) -> Iterator[FaultProxy]:
    """The name that clients know, which leads to one server and then to the other."""
    with FaultProxy(server.port) as proxy:
        yield proxy


def follow(replica: ServerUnderTest, primary: ServerUnderTest) -> None:
    primary.config_set("repl-diskless-sync-delay", 0)
    replica.admin.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
    wait_for(lambda: replica.admin.info("replication")["master_link_status"] == "up")  # type: ignore[index]


def promote(replica: ServerUnderTest) -> None:
    replica.admin.execute_command("REPLICAOF", "NO", "ONE")


# A replica that stands still for a second has not got what came in it; it has what it has acknowledged.
@pytest.mark.parametrize(("within_s", "most_lost"), [(inf, 400), pytest.param(10, 10, marks=long)])
@pytest.mark.parametrize("planned", [pytest.param(True, id="planned", marks=long), pytest.param(False, id="sudden")])
@pytest.mark.usefixtures("soon_again")
def test_consumption_resumes_after_a_promotion(
    server: ServerUnderTest,
    replica: ServerUnderTest,
    address: FaultProxy,
    broker_on: BrokerOn,
    run_worker: Any,
    ledger: Ledger,
    planned: bool,
    within_s: float,
    most_lost: int,
) -> None:
    broker = broker_on(address.url)

    with run_worker(broker=broker), load(broker, ledger) as producers:
        producers.wait_for_accepted(100)
        replicated = wait_until_replicated(server, replica, ledger)
        if planned:
            server.admin.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
            wait_for(lambda: behind_bytes(server, replica) == 0, what="the replica has it all")
        address.server_port = replica.port
        server.kill()
        address.reset()
        producers.wait_for_refused(2)  # it only reads
        promote(replica)
        took_s = seconds_until_new_work_completes(ledger)
        producers.finish(100)

    found = ledger.account()
    print(f"a job that was enqueued after the promotion completed after {took_s:.2f} s; lost {len(found.lost)}")
    assert took_s < within_s
    assert found.unexpected == ()
    assert set(found.lost) & replicated == set()
    assert found.lost == () if planned else len(found.lost) <= most_lost  # what the replica had not got yet


@pytest.mark.parametrize("within_s", [inf, pytest.param(2.5, marks=long)])
def test_a_replica_takes_no_call_half_and_all_of_them_after_its_promotion(
    server: ServerUnderTest, replica: ServerUnderTest, within_s: float
) -> None:
    wire = RedisCalls(connect(replica.url))
    family = QueueOperations(wire, Keys("p").queue("q"))
    before = replica.admin.dbsize()

    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable) as refused:
        family.enqueue([Entry("a", b"{}")])
    took_s = time.monotonic() - started_s
    promote(replica)
    answer = family.enqueue([Entry("a", b"{}")])
    wire.close()

    assert (refused.value.outcome, answer) == ("unknown", ["a"])
    assert took_s < within_s
    assert before == 0 and replica.admin.hlen(family.keys.bodies) == 1


def test_the_watch_follows_a_failover_and_knows_the_keyspace_again(
    server: ServerUnderTest, replica: ServerUnderTest, address: FaultProxy
) -> None:
    watch = Watch(RedisCalls(connect_once(address.url)), Keys("p"), ("q",), production=True)
    watch.generation.prepare()
    wait_for(lambda: replica.admin.exists(Keys("p").generation()), what="the replica has it")

    address.server_port = replica.port
    server.kill()
    address.reset()
    wait_for(lambda: [item.code for item in watch.look().findings] == ["replica"])
    assert watch.health.red and watch.health.pause == ""
    promote(replica)
    promoted = watch.look()
    watch.close()

    assert promoted.findings == () and promoted.pause == ""


def test_a_failover_to_an_empty_server_pauses(
    server: ServerUnderTest, server_name: str, address: FaultProxy, tmp_path: Path
) -> None:
    watch = Watch(RedisCalls(connect_once(address.url)), Keys("p"), ("q",), production=True)
    watch.generation.prepare()

    with ServerUnderTest(tmp_path / "empty", server_binary(server_name)) as empty:
        address.server_port = empty.port
        address.reset()
        pause = wait_for(lambda: watch.look().pause)
        address.server_port = server.port
        address.reset()
        wait_for(lambda: not watch.look().pause, what="it goes on where its marker is")
    watch.close()

    assert "emptied" in pause


def wait_until_replicated(server: ServerUnderTest, replica: ServerUnderTest, ledger: Ledger) -> set[str]:
    """Wait until a replica has all that is accepted now, and return those jobs."""
    accepted = set(ledger.jobs("accepted"))
    written: Any = server.admin.info("replication")
    wait_for(lambda: offset_of(replica) >= written["master_repl_offset"], what="the replica has what was accepted")
    return accepted


def behind_bytes(server: ServerUnderTest, replica: ServerUnderTest) -> int:
    """Return how much of what a server has written its replica has not got yet."""
    written: Any = server.admin.info("replication")
    return int(written["master_repl_offset"]) - offset_of(replica)


def offset_of(replica: ServerUnderTest) -> int:
    """Return how far a replica has got in what its server has written."""
    got: Any = replica.admin.info("replication")
    return int(got["slave_repl_offset"])


def seconds_until_new_work_completes(ledger: Ledger) -> float:
    """Return how long it takes until a job completes that was accepted from now on."""
    known, started_s = set(ledger.jobs("accepted")), time.monotonic()
    wait_for(lambda: set(ledger.jobs("completed")) - known, what="new work completed")
    return time.monotonic() - started_s
