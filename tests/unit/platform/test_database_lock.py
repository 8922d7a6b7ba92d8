"""The writer of an SQLite file by the kernel's table of locks, and the connections that a yard may open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler

from switchyard import database
from switchyard.conf import DEFAULT_YARD
from switchyard.database import RESERVED_CONNECTIONS, SPARE_CONNECTIONS, WEB_CONNECTIONS, planned_connections, pool_size
from switchyard.operations.findings.database import command_of, sqlite_writer
from tests.unit.documentation.pages import read
from tests.waiting import wait_for

WAL = "3: POSIX  ADVISORY  WRITE {pid} fe:01:{inode} 120 120\n"
RESERVED = "4: POSIX  ADVISORY  WRITE {pid} 00:2f:{inode} 1073741825 1073741825\n"
READER = "5: POSIX  ADVISORY  READ  {pid} fe:01:{inode} 124 124\n"
WAITER = "3: -> POSIX  ADVISORY  WRITE 99999 fe:01:{inode} 120 120\n"
PAGE = read("docs/how-to/run-on-postgresql.md")
# PostgreSQL's own, and how much of it a person with psql, a backup and a second web need.
DEFAULT_LIMIT, MARGIN = 100, 5


@pytest.mark.parametrize(
    ("suffix", "lines", "held"),
    [("-shm", READER + WAL, True), ("", RESERVED, True), ("-shm", READER, False), ("-shm", WAITER, False)],
)
def test_only_who_holds_the_write_lock_is_named(tmp_path: Path, suffix: str, lines: str, held: bool) -> None:
    for name in ("db", "db-shm"):
        (tmp_path / name).touch()
    inode = (tmp_path / f"db{suffix}").stat().st_ino
    table = tmp_path / "locks"
    table.write_text(lines.format(pid=os.getpid(), inode=inode))

    found = sqlite_writer(tmp_path / "db", table)

    assert (found is not None and found[0] == os.getpid()) == held


def test_a_kernel_without_the_table_is_no_error(tmp_path: Path) -> None:
    assert sqlite_writer(tmp_path / "db", tmp_path / "none") is None


def test_passwords_of_a_command_line_are_not_told() -> None:
    words = ("postgres://ada:opensesame@db/x", "--password=opensesame", "--api-token", "opensesame", "file.sql")
    command = ["python", "-c", "input()", *words]  # without this clone's path: a long command line is cut
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE) as process:
        # Until it has executed the command, the new process has this one's command line or none.
        shown = wait_for(lambda: (line := command_of(process.pid)).endswith("file.sql") and line)
        process.communicate(b"\n")

    assert "opensesame" not in shown
    assert "postgres://…@db/x --password=… --api-token … file.sql" in shown


@pytest.mark.parametrize("size", [None, 20])
def test_the_yard_of_a_project_that_declares_none_fits_a_postgres_that_nobody_configured(size: int | None) -> None:
    planned = planned_connections(DEFAULT_YARD, pool_size=size)

    assert planned + MARGIN <= DEFAULT_LIMIT - RESERVED_CONNECTIONS
    assert f"**{planned}**" in PAGE


def test_the_page_says_what_the_repositorys_own_yard_may_open() -> None:
    planned = planned_connections(settings.SWITCHYARD.topology.with_cores(2))

    assert re.search(rf"\| {planned} on two cores.*at least {planned + RESERVED_CONNECTIONS}", PAGE, re.DOTALL)


def test_a_pool_of_django_bounds_the_web_and_adds_a_connection_for_async_actors_to_each_child() -> None:
    children = sum(pool.most_children for pool in DEFAULT_YARD.pools)
    slots = planned_connections(DEFAULT_YARD) - WEB_CONNECTIONS - SPARE_CONNECTIONS

    assert planned_connections(DEFAULT_YARD, pool_size=7) == slots + children + 7 + SPARE_CONNECTIONS


@pytest.mark.parametrize(
    ("options", "size"),
    [
        *(({}, None), ({"pool": False}, None), ({"pool": True}, 4), ({"pool": {"min_size": 6}}, 6)),
        ({"pool": {"min_size": 0, "max_size": 20}}, 20),
    ],
)
def test_size_of_djangos_pool_is_read_from_the_options(
    options: dict[str, Any], size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": options}})
    monkeypatch.setattr(database, "connections", handler)

    assert pool_size("default") == size
