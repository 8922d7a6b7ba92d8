"""SQLite for many processes that write: who waits for the writer's lock looks often, and lets greenlets go on.

SQLite's own busy wait sleeps longer and longer, up to 100 ms a look, so whoever writes all the time keeps the lock
from the others; and it sleeps in C, where a gevent child's other greenlets wait with it. So a transaction's BEGIN
IMMEDIATE is tried without SQLite's wait, every few milliseconds, for as long as the connection's ``timeout`` says.
Single statements outside of transactions wait as SQLite does.
"""

from __future__ import annotations

import random
import time
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

LOOK_MS = (1, 4)
DEFAULT_TIMEOUT_S = 5.0  # Python's own


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's SQLite connection with a fair and cooperative wait for the writer's lock."""

    def _start_transaction_under_autocommit(self) -> None:
        timeout_s = float(self.settings_dict["OPTIONS"].get("timeout", DEFAULT_TIMEOUT_S))
        deadline = time.monotonic() + timeout_s
        self._wait_ms(0)
        try:
            while not self._begins(is_last_try=time.monotonic() >= deadline):
                time.sleep(random.uniform(*LOOK_MS) / 1000)  # noqa: S311  no secret
        finally:
            self._wait_ms(int(timeout_s * 1000))

    def _begins(self, *, is_last_try: bool) -> bool:
        begin: Any = super()._start_transaction_under_autocommit  # type: ignore[misc]
        try:
            begin()
        except OperationalError as error:
            if is_last_try or "locked" not in str(error):
                raise
            return False
        return True

    def _wait_ms(self, timeout_ms: int) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")
