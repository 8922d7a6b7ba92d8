"""A host whose container is killed, and started again."""

from __future__ import annotations

import signal

from tests.chaos.pools import Pools, RunningPool


class Host:
    """A host that starts its container again whenever its processes have ended, and counts the kills."""

    def __init__(self, pools: Pools, settings: str) -> None:
        self._pools, self._settings = pools, settings
        self.rounds, self.failed_starts = 0, list[str]()
        self.pool = self._start()

    def restart_if_gone(self) -> bool:
        """Start the pool again if it has ended, and return whether it runs still."""
        if self.pool.process.poll() is None:
            return True
        if self.pool.process.returncode == -signal.SIGKILL:
            self.rounds += 1
        else:
            self.failed_starts.append(self.pool.log()[-2_000:])
        self.pool = self._start()
        return False

    def kill(self) -> None:
        """Kill supervisor and children."""
        self.pool.signal_all(signal.SIGKILL)
        self.pool.process.wait()
        self.pool = self._start()

    def _start(self) -> RunningPool:
        return self._pools.start("runpool", "work", settings=self._settings, ready=False)
