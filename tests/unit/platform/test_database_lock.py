"""The kernel's table of locks names the process that writes an SQLite file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.operations.findings.database import command_of, sqlite_writer
from tests.waiting import wait_for

WAL = "3: POSIX  ADVISORY  WRITE {pid} fe:01:{inode} 120 120\n"
RESERVED = "4: POSIX  ADVISORY  WRITE {pid} 00:2f:{inode} 1073741825 1073741825\n"
READER = "5: POSIX  ADVISORY  READ  {pid} fe:01:{inode} 124 124\n"
WAITER = "3: -> POSIX  ADVISORY  WRITE 99999 fe:01:{inode} 120 120\n"


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
