"""Death with the parent: the kernel ends a child process when its parent ends, even by SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int = signal.SIGTERM, *, parent_pid: int | None = None) -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for ``subprocess`` that has the kernel send ``signum`` when this process ends.

    The kernel watches the thread that forked, not the process: start children from a thread that lasts.

    Args:
        parent_pid: The parent, when this is called in the child itself; by default this process is the parent.

    Returns:
        ``None`` where the kernel cannot do it (anything but Linux).
    """
    if sys.platform != "linux":
        return None
    prctl = _prctl()
    parent_pid = parent_pid or os.getpid()

    def ask_kernel() -> None:
        if prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0 or os.getppid() != parent_pid:
            os._exit(1)

    return ask_kernel


def _prctl() -> Callable[..., int]:
    found: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return found
