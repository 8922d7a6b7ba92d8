"""SQLite for many writers: a statement waits for the write lock outside of SQLite, with frequent retries.

SQLite's own busy wait holds the mutex of its connection, blocks every greenlet of its thread, and starves all but a
connection that writes all the time. Here a statement that finds the database locked is retried after some milliseconds,
until the connection's ``timeout`` has passed.

Source: docs/decisions/0008-waiting-for-sqlite.md
"""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base

LOOK_MS = (2, 8)
DEFAULT_TIMEOUT_S = 5.0  # Python's own


class Cursor(base.SQLiteCursorWrapper):
    """Cursor that waits outside of SQLite for the lock. ``executemany`` outside of a transaction does not wait."""

    timeout_s = DEFAULT_TIMEOUT_S

    def execute(self, query: str, params: Any = None) -> Cursor:
        """Run a statement.

        Raises:
            sqlite3.OperationalError: the database is locked, for longer than the timeout; or another error, at once.
        """
        # A transaction has held the write lock since its BEGIN IMMEDIATE, so its statements never wait.
        deadline = time.monotonic() + (0.0 if self.connection.in_transaction else self.timeout_s)
        while True:
            try:
                super().execute(query, params)
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the low byte is the primary code
                if not is_busy or time.monotonic() >= deadline:
                    raise
            else:
                return self
            time.sleep(random.uniform(*LOOK_MS) / 1000)  # noqa: S311  no secret


# Files that this process, or the one it was forked from, has opened.
_opened: set[str] = set()


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's SQLite connection with a wait for locks that blocks no other thread or greenlet."""

    init_commands: list[str]  # Django's, which its type stubs leave out

    def prepare_database(self) -> None:
        """Let ``migrate``, which calls this, create a file that was removed."""
        _opened.discard(str(self.settings_dict["NAME"]))

    def get_new_connection(self, conn_params: dict[str, Any]) -> sqlite3.Connection:
        """Connect, and wait for the lock as every statement does.

        SQLite does not wait when two connections set a new file's journal: it refuses the second one at once. The
        first tasks of a pool open the file together.

        Raises:
            sqlite3.OperationalError: the file was there and is gone (an empty one in its place would hide that); or the
                database is locked, for longer than the timeout.
        """
        name = str(conn_params["database"])
        if name in _opened and not Path(name).exists():
            raise sqlite3.OperationalError(f"the database {Path(name).name} is gone; put it back, or run migrate")
        # Django would run them without a wait; it reads them from the settings for each connection.
        statements, self.init_commands = self.init_commands, []
        connection: sqlite3.Connection = super().get_new_connection(conn_params)
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            cursor = self._waiting_cursor(connection)
            for statement in filter(None, map(str.strip, statements)):
                cursor.execute(statement)
        except BaseException:
            connection.close()
            raise
        if Path(name).is_file():
            _opened.add(name)
        return connection

    def create_cursor(self, name: str | None = None) -> Cursor:
        """Return a cursor that waits."""
        return self._waiting_cursor(self.connection)

    def _waiting_cursor(self, connection: sqlite3.Connection) -> Cursor:
        cursor: Cursor = connection.cursor(factory=Cursor)
        cursor.timeout_s = float(self.settings_dict["OPTIONS"].get("timeout", DEFAULT_TIMEOUT_S))
        return cursor
