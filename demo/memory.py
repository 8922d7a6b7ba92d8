"""How much memory a process and everything it started take together."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def proportional_bytes(pid: int) -> int:
    """Return the sum of the proportional set sizes of a process and its descendants.

    Pages that several share count once in all. Where the system does not tell (not Linux), resident sizes are added.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                total += _one(process)
    return total


def _one(process: psutil.Process) -> int:
    smaps = Path(f"/proc/{process.pid}/smaps_rollup")
    if not smaps.exists():
        return int(process.memory_info().rss)
    for line in smaps.read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
