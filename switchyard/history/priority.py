"""Priority of the history writer: other work of the machine comes first, rows wait in the broker meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

NICE: Final = 19
AUTOGROUP: Final = Path("/proc/self/autogroup")


def yield_to_other_work() -> None:
    """Lower the priority of this process, and of its session if it leads one.

    Where the kernel groups processes by session (``kernel.sched_autogroup_enabled``), a process is nice only to those
    of its own session, and sessions have a priority of their own.
    """
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without such groups, or a read-only /proc
            AUTOGROUP.write_text(str(NICE))
