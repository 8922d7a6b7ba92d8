"""Children that die at one moment of the way of a message or of a group: nothing is lost, once stays once: F08, F09."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dramatiq.message import Message
from dramatiq.results import ResultFailure
from dramatiq_abort import abort

from switchyard.middleware.aborting import CancelAbortable
from tests.chaos.databases import SQLITE_TABLE, TABLE, environment, manage
from tests.chaos.linked_jobs import called, declare_group_jobs, run_group
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.yard.moments import DEATHS, GROUP_MOMENTS, MOMENTS
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
JOBS = 60
MOST_HELD = 8  # by a child of four slots
# Of each step one moment; the others run with --long.
OFTEN = ("after the fetch", "after the slot", "after the task", "before the acknowledgement")
EARLY = ("before the fetch", "after the fetch", "before it is handed out", "before the slot", "after the slot")
long = pytest.mark.long
LONG_S = 60
GROUPS = [f"group-{number}" for number in range(6)]
GROUP_SIZE = 5


@pytest.mark.timeout(240)
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=long)])
@pytest.mark.parametrize(
    "moment", [moment if moment in OFTEN else pytest.param(moment, marks=long) for moment in MOMENTS]
)
def test_a_child_that_dies_at_a_moment_of_a_messages_way_loses_nothing(pools, ledger, deaths, moment):
    for number in range(JOBS):
        enqueue(pools.broker, ledger, f"job-{number:02d}.", 5)

    pool = pools.start("runpool", "work", settings="tests.chaos.yard.dying_settings")
    wait_until_drained(pools.broker)

    print(f"{moment}: {deaths()} deaths, {len(ledger.jobs('started')) - JOBS} started again")
    found = ledger.none_lost()
    assert deaths() == 3
    # A death may be logged after the last acknowledgement. Two threads of one child may reach the moment together.
    pool.wait_for_log("killed by SIGKILL")
    assert pool.log().count("killed by SIGKILL") <= 3
    # Finished messages are acknowledged in batches, after their records are written; until then they run again if
    # their child dies. A message that has not finished cannot be duplicated.
    assert len(found.duplicated) <= (0 if moment in EARLY else 3 * MOST_HELD)


@pytest.fixture(params=["sqlite", "postgres"])
def execute(request, tmp_path, valkey_url, monkeypatch) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Run a statement on the pools' database, which has the platform's tables and ``chaos_row``."""
    with contextlib.ExitStack() as stack:
        if request.param == "postgres":
            server = stack.enter_context(PostgresUnderTest())
            url, table, execute = server.url, TABLE, server.execute
        else:
            file = tmp_path / "db.sqlite3"
            connection = stack.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
            url, table = f"sqlite:///{file}", SQLITE_TABLE
            execute = lambda statement: connection.execute(statement).fetchall()  # noqa: E731
        manage(environment(tmp_path, valkey_url, url), "migrate", "--verbosity=0")
        execute(table)
        monkeypatch.setenv("DATABASE_URL", url)
        yield execute


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", ["after the task", pytest.param("before the note", marks=long)])
def test_what_is_done_once_is_not_done_again_after_a_death_before_the_acknowledgement(
    execute, pools, ledger, deaths, moment
):
    jobs = [f"job-{number:02d}." for number in range(JOBS)]
    for job in jobs:
        ledger.note("attempted", job)
        pools.broker.enqueue(Message(QUEUE, "once_row", (job,), {}, {}, message_id=job))
        ledger.note("accepted", job)

    pools.start("runpool", "work", settings="tests.chaos.yard.dying_settings")
    wait_until_drained(pools.broker)

    runs = Counter(ledger.jobs("completed"))
    print(f"{moment}: {sum(runs.values())} runs came to their end, of {len(jobs)} jobs")
    ledger.none_lost()
    assert deaths() == 3
    assert max(runs.values()) >= 2
    for rows in ("job FROM chaos_row", "key FROM switchyard_jobs_doneonce WHERE job_id = key AND token > 0"):
        assert sorted(execute(f"SELECT {rows}")) == [(job,) for job in jobs]


@pytest.mark.parametrize(
    "moment",
    [moment if moment == "after the callbacks" else pytest.param(moment, marks=long) for moment in GROUP_MOMENTS],
)
def test_a_worker_killed_between_end_and_acknowledgement_leaves_one_callback(
    pools_on, valkey_url, ledger, deaths, moment
):
    pools = pools_on("processes", valkey_url)  # one slot a child: no death interrupts a callback
    groups = {name: run_group(pools.broker, name, GROUP_SIZE) for name in GROUPS}

    pools.start("runpool", "work", settings="tests.chaos.yard.dying_settings")
    wait_for(lambda: len(called(ledger)) >= len(GROUPS), LONG_S, what="a callback of each group")
    wait_until_drained(pools.broker, LONG_S)

    assert deaths() == DEATHS
    assert Counter(called(ledger)) == dict.fromkeys(GROUPS, 1)
    assert max(Counter(ledger.jobs("completed")).values()) >= 2, "the killed jobs ran again"
    with the_global_broker(pools.broker):
        for name, jobs in groups.items():
            assert list(jobs.get_results()) == [f"{name}-{number}" for number in range(GROUP_SIZE)]


@pytest.mark.parametrize(
    "yard", ["processes", pytest.param("threads", marks=long), pytest.param("greenlets", marks=long)]
)
def test_every_kind_of_pool_keeps_results_calls_back_and_aborts(pools, ledger):
    endless = Message(QUEUE, "aborted_job", ("endless",), {}, {})
    with the_global_broker(pools.broker):
        groups = {name: run_group(pools.broker, name, GROUP_SIZE) for name in GROUPS}
        pools.start("runpool", "work", settings="tests.chaos.yard.aborting_settings")
        found = {name: list(jobs.get_results(block=True, timeout=LONG_S * 1_000)) for name, jobs in groups.items()}
        wait_for(lambda: len(called(ledger)) >= len(GROUPS), LONG_S, what="a callback of each group")
        pools.broker.enqueue(endless)
        wait_for(lambda: "endless" in ledger.jobs("started"), LONG_S, what="the endless job started")
        abort(endless.message_id, middleware=CancelAbortable())
        with pytest.raises(ResultFailure, match="the job is cancelled"):
            pools.broker.get_results_backend().get_result(endless, block=True, timeout=LONG_S * 1_000)
        wait_until_drained(pools.broker, LONG_S)

    assert found == {name: [f"{name}-{number}" for number in range(GROUP_SIZE)] for name in GROUPS}
    assert Counter(called(ledger)) == dict.fromkeys(GROUPS, 1)
    assert ledger.jobs("completed").count("endless") == 1


@pytest.mark.usefixtures("soon_again")
def test_a_server_that_restarts_leaves_one_callback(server, broker_on, run_worker, ledger):
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
