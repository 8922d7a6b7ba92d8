"""Locks of a table's rows against writes, as a database that stands still appears to other processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, models


@contextmanager
def writes_held(model: type[models.Model], *, drop: bool = False) -> Iterator[None]:
    """Let writes to a model's table wait: SQLite's only write lock is held, or on PostgreSQL that of the table.

    Args:
        drop: End the sessions that wait when the block ends. PostgreSQL writes for them even if their process is gone;
            SQLite does not.
    """
    other: Any = connection.copy()
    table = model._meta.db_table
    try:
        with other.cursor() as cursor:
            if other.vendor == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            else:
                cursor.execute("BEGIN")
                cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            try:
                yield
                if drop and other.vendor == "postgresql":
                    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
                    cursor.execute(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS waiting", [table])
            finally:
                cursor.execute("ROLLBACK")
    finally:
        other.close()
