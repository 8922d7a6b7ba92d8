"""Process that examines the yard and sends its alerts while no scheduler leads: one, started by one supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from django.apps import apps

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.late_imports import is_patched
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.limit_counts import Lock
from switchyard.conf import switchyard_settings
from switchyard.long_running import LEASE_S, anyone_leads
from switchyard.workers.child.spawn import execute
from switchyard.workers.shared.fork import fork

NAME: Final = "alerts"
# A scheduler that is restarted leads again by then.
ALONE_S = 15.0
# Looks that are further apart do not say what was between them.
GAP_S = 10.0

logger = logging.getLogger("switchyard.workers")


class StandIn:
    """The process, while this supervisor holds the lock for it. Without a channel for alerts there is none."""

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        *,
        close_inherited: Iterable[Callable[[], None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._calls, self._keys, self._close_inherited = calls, keys, tuple(close_inherited)
        self._lock = Lock(calls, keys, NAME, lease_ms=int(LEASE_S * 1_000))
        app = apps.app_configs.get("switchyard_operations")  # a project may be without it
        self._run = app.stand_in if app is not None and switchyard_settings().alert_urls else None  # type: ignore[attr-defined]
        self._alone_since_s = self._looked_s = 0.0
        self._pid = 0

    def look(self) -> None:
        """Start the process once no scheduler has led for 15 s, and end it when one leads or another holds the lock.

        Blocks for at most 2 s, while the broker does not answer.
        """
        if self._run is None:
            return
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        now_s = self._clock()
        try:
            if anyone_leads(self._calls, self._keys) or now_s - self._looked_s > GAP_S:
                self._alone_since_s = now_s
            self._looked_s = now_s
            if now_s - self._alone_since_s < ALONE_S or not self._lock.acquire():
                self.end()
            elif not self._pid:
                logger.warning("no scheduler leads: this pool sends the alerts until one does")
                self._pid = fork(partial(_run, self._run), title="alerts", close_inherited=self._close_inherited)
        except BrokerError as error:
            logger.warning("no answer to whether a scheduler leads: %s", error.kind)

    def end(self) -> None:
        """End the process, so that another supervisor may start its own."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError, BrokerError):
                os.kill(self._pid, signal.SIGTERM)
                self._lock.release()


def _run(run: Callable[[], int]) -> int:
    if is_patched():  # where greenlets take turns, a call that blocks would hold up every other
        execute("switchyard.operations.stand_in", [])
    return run()
