"""The doctor finds what was done to real pools."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from switchyard.operations.findings.finding import EXIT_CODES
from tests.chaos.databases import ROOT, SQLITE_TABLE, DatabaseYard, environment, manage
from tests.chaos.ledger import Ledger
from tests.processes import is_alive
from tests.waiting import wait_for

# True on a machine with more work than cores, and not what these tests are about.
BUSY = {"configuration.hangs", "broker.slow"}


@pytest.fixture
def yard(valkey: redis.Redis, valkey_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[DatabaseYard]:
    """Real pools of every kind on SQLite."""
    path = tmp_path / "db.sqlite3"
    manage(environment(tmp_path, ledger, valkey_url, f"sqlite:///{path}"), "migrate", "--verbosity=0")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SQLITE_TABLE)
    yard = DatabaseYard(tmp_path, ledger, valkey_url, f"sqlite:///{path}")
    valkey.slowlog_reset()  # tests before may have kept the server busy
    yard.start()
    yield yard
    yard.stop()


def ask(yard: DatabaseYard) -> dict[str, Any]:
    """Return the doctor's report from a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "doctor", "--json"],
        env=yard.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit_code"]
    return report


def found_by(report: dict[str, Any]) -> set[str]:
    """Return the group and code of each warning and error of a report."""
    return {f"{found['group']}.{found['code']}" for found in report["findings"] if EXIT_CODES[found["severity"]]}


def ask_until(yard: DatabaseYard, *, exit_code: int, code: str = "") -> dict[str, Any]:
    """Return the first report with an exit code, and with a finding of this group and code where one is named.

    Raises:
        AssertionError: there was none within two minutes, and what the last one found.
    """
    last: dict[str, Any] = {}

    def asked() -> bool:
        last.update(ask(yard))
        codes = {f"{found['group']}.{found['code']}": EXIT_CODES[found["severity"]] for found in last["findings"]}
        worst = max((worth for name, worth in codes.items() if name not in BUSY), default=0)
        return bool(worst == exit_code and (not code or code in codes))

    try:
        wait_for(asked, 120)
    except AssertionError as error:
        found = [finding for finding in last["findings"] if finding["severity"] != "ok"]
        raise AssertionError(f"no report with exit code {exit_code}; the last one found {found}") from error
    return last


@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_pool_that_was_killed_is_found_and_the_others_are_well(yard: DatabaseYard) -> None:
    well = ask(yard)
    with scheduler(yard):
        healthy = ask_until(yard, exit_code=0)
    [gone] = [report for report in yard.reports() if report.pool == "processes"]
    yard.signal_parent(signal.SIGSTOP)  # or it would start the pool again
    os.kill(gone.pid, signal.SIGKILL)
    members = [gone.pid, *(child["pid"] for child in gone.children)]
    wait_for(lambda: not any(is_alive(pid) for pid in members), what="its end, or its child may still take the job")
    job = yard.send("processes_row", "processes")
    # The late job may be told before the report of its pool has lapsed.
    killed = ask_until(yard, exit_code=2, code="pools.down")
    yard.signal_parent(signal.SIGCONT)
    yard.wait_for_completed([job])

    assert found_by(well) - BUSY == {"scheduler.down"}
    assert found_by(healthy) - BUSY == set()
    down = [found for found in killed["findings"] if found["group"] == "pools" and found["severity"] != "ok"]
    assert [(found["code"], found["subject"]) for found in down] == [("down", "processes")]
    assert down[0]["next"] == "manage.py switchyard runpool processes"


@contextlib.contextmanager
def scheduler(yard: DatabaseYard) -> Iterator[None]:
    """Run a scheduler for the time of the block."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "runscheduler"],
        env=yard.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
