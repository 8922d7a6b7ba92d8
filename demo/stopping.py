"""Signals that ask the demo to stop: once to drain, twice to end at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Remembers how often somebody asked."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._hurry = False

    def listen(self) -> None:
        """Take over SIGINT, SIGTERM and SIGHUP. From the main thread only."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def is_stopping(self) -> bool:
        """Whether somebody asked."""
        return self._asked.is_set()

    def is_in_a_hurry(self) -> bool:
        """Whether they asked again."""
        return self._hurry

    def ask(self) -> None:
        """Ask from inside."""
        self._asked.set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep for so long, less when somebody asks; return whether somebody has."""
        return self._asked.wait(timeout_s)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._hurry = self._asked.is_set()
        self._asked.set()
