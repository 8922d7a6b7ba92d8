"""State of processes that are not children of the test."""

import contextlib
import os
import select
import time
from pathlib import Path

import psutil


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def titles_below(pid: int) -> dict[str, int]:
    """Return title (without ``switchyard: ``) -> pid of all processes below one."""
    found = {}
    for process in _below(pid):
        with contextlib.suppress(psutil.Error):
            found[" ".join(process.cmdline()).strip().removeprefix("switchyard: ")] = process.pid
    return found


def _below(pid: int) -> list[psutil.Process]:
    """Return all processes below one. psutil gives up when one ends while it looks."""
    while is_alive(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).children(recursive=True)
    return []


def wait_for_end(pid: int, timeout_s: float) -> float:
    """Wait until a process has ended, and return the monotonic time of it.

    Raises:
        AssertionError: it runs still.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return time.monotonic()
    try:
        ended, _, _ = select.select([pidfd], [], [], timeout_s)
        at_s = time.monotonic()
    finally:
        os.close(pidfd)
    assert ended, f"process {pid} runs still after {timeout_s} s"
    return at_s
