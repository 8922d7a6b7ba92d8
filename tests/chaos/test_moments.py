"""F08 and F09: children that die at one moment of a message's way: nothing is lost, once stays once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dramatiq.message import Message

from tests.chaos.conftest import PoolsOn
from tests.chaos.databases import SQLITE_TABLE, TABLE, environment, manage
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.chaos.pools import Pools
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.yard.moments import MOMENTS

pytestmark = pytest.mark.usefixtures("valkey")
JOBS = 60
MOST_HELD = 8  # by a child of four slots
# Of each step one moment; the others run with --long.
OFTEN = ("after the fetch", "after the slot", "after the task", "before the acknowledgement")
EARLY = ("before the fetch", "after the fetch", "before it is handed out", "before the slot", "after the slot")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "moment", [moment if moment in OFTEN else pytest.param(moment, marks=pytest.mark.long) for moment in MOMENTS]
)
def test_a_child_that_dies_at_a_moment_of_a_messages_way_loses_nothing(
    pools: Pools, ledger: Ledger, deaths: Callable[[], int], moment: str
) -> None:
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


Execute = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["sqlite", "postgres"])
def execute(
    request: pytest.FixtureRequest, tmp_path: Path, ledger: Ledger, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Execute]:
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
        manage(environment(tmp_path, ledger, valkey_url, url), "migrate", "--verbosity=0")
        execute(table)
        monkeypatch.setenv("DATABASE_URL", url)
        yield execute


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", ["after the task", pytest.param("before the note", marks=pytest.mark.long)])
def test_what_is_done_once_is_not_done_again_after_a_death_before_the_acknowledgement(
    execute: Execute, pools_on: PoolsOn, valkey_url: str, ledger: Ledger, deaths: Callable[[], int], moment: str
) -> None:
    pools = pools_on("threads", valkey_url)
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
    assert sorted(execute("SELECT job FROM chaos_row")) == [(job,) for job in jobs]
    assert sorted(execute("SELECT key FROM switchyard_jobs_doneonce WHERE job_id = key AND token > 0")) == [
        (job,) for job in jobs
    ]
