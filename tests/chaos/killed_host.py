"""A host whose container is killed, and started again."""

from __future__ import annotations

import signal

from tests.chaos.pools import Pools, RunningPool


class Host:
    """A host that starts its container again whenever the container's processes were killed."""

    def __init__(self, pools: Pools, settings: str) -> None:
        self._pools, self._settings = pools, settings
        self.rounds = 0
        self.pool = self._start()

    def restart_if_gone(self) -> bool:
        """Start the pool again if it was killed, and return whether it runs still."""
        if self.pool.process.poll() is None:
            return True
        self.rounds += 1
        self.pool = self._start()
        return False

    def kill(self) -> None:
        """Kill supervisor and children."""
        self.pool.signal_all(signal.SIGKILL)
        self.pool.process.wait()
        self.pool = self._start()

    def _start(self) -> RunningPool:
        return self._pools.start("runpool", "work", settings=self._settings, ready=False)
