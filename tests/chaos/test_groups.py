"""Groups whose workers are killed, whose server restarts, and whose jobs repeat: one callback, and every result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq.message import Message
from dramatiq.results import ResultFailure
from dramatiq_abort import abort

from switchyard.middleware.aborting import CancelAbortable
from tests.chaos.conftest import BrokerOn, PoolsOn
from tests.chaos.group_jobs import called, declare_group_jobs, run_group
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, wait_until_drained
from tests.chaos.pools import Pools
from tests.chaos.server import ServerUnderTest
from tests.chaos.yard.moments import DEATHS, GROUP_MOMENTS
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

long = pytest.mark.long
LONG_S = 60
GROUPS = [f"group-{number}" for number in range(6)]
JOBS = 5


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(
    "moment",
    [moment if moment == "after the callbacks" else pytest.param(moment, marks=long) for moment in GROUP_MOMENTS],
)
def test_a_worker_killed_between_end_and_acknowledgement_leaves_one_callback(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, deaths: Callable[[], int], moment: str
) -> None:
    pools = pools_on("processes", valkey_url)  # one slot a child: no death interrupts a callback
    groups = {name: run_group(pools.broker, name, JOBS) for name in GROUPS}

    pools.start("runpool", "work", settings="tests.chaos.yard.dying_settings")
    wait_for(lambda: len(called(ledger)) >= len(GROUPS), LONG_S, what="a callback of each group")
    wait_until_drained(pools.broker, LONG_S)

    assert deaths() == DEATHS
    assert Counter(called(ledger)) == dict.fromkeys(GROUPS, 1)
    assert max(Counter(ledger.jobs("completed")).values()) >= 2, "the killed jobs ran again"
    with the_global_broker(pools.broker):
        for name, jobs in groups.items():
            assert list(jobs.get_results()) == [f"{name}-{number}" for number in range(JOBS)]


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(
    "yard", ["processes", pytest.param("threads", marks=long), pytest.param("greenlets", marks=long)]
)
def test_every_kind_of_pool_keeps_results_calls_back_and_aborts(pools: Pools, ledger: Ledger) -> None:
    endless: Message[Any] = Message(QUEUE, "aborted_job", ("endless",), {}, {})
    with the_global_broker(pools.broker):
        groups = {name: run_group(pools.broker, name, JOBS) for name in GROUPS}
        pools.start("runpool", "work", settings="tests.chaos.yard.aborting_settings")
        found = {name: list(jobs.get_results(block=True, timeout=LONG_S * 1_000)) for name, jobs in groups.items()}
        wait_for(lambda: len(called(ledger)) >= len(GROUPS), LONG_S, what="a callback of each group")
        pools.broker.enqueue(endless)
        wait_for(lambda: "endless" in ledger.jobs("started"), LONG_S, what="the endless job started")
        abort(endless.message_id, middleware=CancelAbortable())
        with pytest.raises(ResultFailure, match="the job is cancelled"):
            pools.broker.get_results_backend().get_result(endless, block=True, timeout=LONG_S * 1_000)
        wait_until_drained(pools.broker, LONG_S)

    assert found == {name: [f"{name}-{number}" for number in range(JOBS)] for name in GROUPS}
    assert Counter(called(ledger)) == dict.fromkeys(GROUPS, 1)
    assert ledger.jobs("completed").count("endless") == 1


@pytest.mark.usefixtures("soon_again")
def test_a_server_that_restarts_leaves_one_callback(
    server: ServerUnderTest, broker_on: BrokerOn, run_worker: Any, ledger: Ledger
) -> None:
    server.sync_each_write()
    broker = broker_on(server.url)
    declare_group_jobs(broker, ledger)
    with the_global_broker(broker):
        jobs = run_group(broker, "group", 40, ms=20)

        with run_worker(broker=broker):
            wait_for(lambda: len(ledger.jobs("completed")) >= 10, LONG_S, what="10 jobs ended")
            server.kill()
            server.restart()
            found = list(jobs.get_results(block=True, timeout=LONG_S * 1_000))
            wait_for(lambda: called(ledger), LONG_S, what="the callback")
            wait_until_drained(broker, LONG_S)
        after = list(jobs.get_results())

    assert found == after == [f"group-{number}" for number in range(40)]
    assert called(ledger) == ["group"]
