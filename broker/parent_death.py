"""A child process that does not outlive its parent, not even a parent that was killed with SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int = signal.SIGTERM) -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for ``subprocess`` that has the kernel send ``signum`` when this process ends.

    The kernel watches the thread that forked, not the process: start children from a thread that stays.
    Returns ``None`` where the kernel cannot do it (anything but Linux).
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent_pid = os.getpid()

    def ask_kernel() -> None:
        if prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0 or os.getppid() != parent_pid:
            os._exit(1)

    return ask_kernel
