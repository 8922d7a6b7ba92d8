"""Stop signals of the demo: the first drains, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Stop request, set by a signal or by the demo itself."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._forced = False

    def listen(self) -> None:
        """Install handlers for SIGINT, SIGTERM and SIGHUP. From the main thread only."""
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._requested.is_set()

    def is_forced(self) -> bool:
        """Whether a second signal came: kill instead of drain."""
        return self._forced

    def request(self) -> None:
        """Request a stop from inside the demo."""
        self._requested.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the stop request, at most ``timeout_s``; return whether it was made."""
        return self._requested.wait(timeout_s)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._forced = self._requested.is_set()
        self._requested.set()
