"""Signals as a descriptor for a selector. Handlers only note them; the loop handles them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from types import FrameType

# Signals that our processes handle. Not SIGCHLD: gevent cannot see a subprocess end while that is blocked.
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
# From a supervisor to its gevent child: a task must stop that may block the child's other greenlets.
INTERRUPT = signal.SIGUSR2


class SignalPipe:
    """Received signals, with a descriptor that is readable when one came. One for each process, in its main thread.

    The handler takes no lock: an ``Event`` set there could wait for the very thread it interrupts.

    Args:
        noted: Signals to note.
        ignored: Signals to ignore, because the parent passes them on.
    """

    def __init__(self, noted: Iterable[int], ignored: Iterable[int] = ()) -> None:
        self._came: list[int] = []
        self.read_fd, self._write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in noted:
            signal.signal(signum, self._note)
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)
        # Blocked since the fork that made this process, see shared/fork.py.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def take(self) -> list[int]:
        """Return the signals that came since the last call, oldest first."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.read_fd, 512):
                pass
        came, self._came = self._came, []
        return came

    def close(self) -> None:
        """Close both ends, in a forked child, whose own wake-ups would wake its parent."""
        os.close(self.read_fd)
        os.close(self._write_fd)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._came.append(signum)
