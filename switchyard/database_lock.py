"""Holder of the write lock of an SQLite file: from the kernel's table of locks, without touching the file."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

# Bytes that SQLite locks to write: of the -shm file in WAL mode, of the database itself otherwise.
_WAL_WRITE = range(120, 121)
_RESERVED = range(0x40000000, 0x40000000 + 2)
_LONGEST_COMMAND = 100
# Passwords in a command line, which the overview shows to whoever may see it: in an address, and after a name.
_SECRETS = (
    (re.compile(r"(://)[^/\s]*@"), r"\1…@"),
    (re.compile(r"(?i)([\w-]*(?:pass|pwd|secret|token|key|credential)[\w-]*[= ])\S+"), r"\1…"),
)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process that holds a lock; ``command`` is "" where it cannot be read."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})" if self.command else f"pid {self.pid}"


def sqlite_writer(database: str | Path, table: Path = Path("/proc/locks")) -> LockHolder | None:
    """Return the process that holds the write lock; ``None`` where none does, or the kernel does not tell.

    Opening and closing the file would release this process's own locks on it, so its inode is compared instead.
    """
    places: dict[int, range] = {}
    for name, locked in ((f"{database}-shm", _WAL_WRITE), (str(database), _RESERVED)):
        with contextlib.suppress(OSError):
            places[Path(name).stat().st_ino] = locked
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        # ``1: POSIX ADVISORY WRITE 4711 fe:01:1234 120 120``; one that waits has an arrow before its kind.
        if len(words) != 8 or words[1] not in ("POSIX", "OFDLCK") or words[3] != "WRITE":
            continue
        pid, inode, first, last = words[4], words[5].rpartition(":")[2], words[6], words[7]
        if not (inode.isdecimal() and pid.isdecimal() and first.isdecimal()) or int(inode) not in places:
            continue
        locked = places[int(inode)]
        if int(first) in locked and (last == "EOF" or int(last) >= locked.start):
            return LockHolder(int(pid), command_of(int(pid)))
    return None


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened and without passwords; "" where it cannot be read."""
    try:
        command = " ".join(psutil.Process(pid).cmdline()).strip()
    except psutil.Error:
        return ""
    for secret, hidden in _SECRETS:
        command = secret.sub(hidden, command)
    return command[:_LONGEST_COMMAND]
