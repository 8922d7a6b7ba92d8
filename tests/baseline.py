"""Rows of the tests' database as its migrations left them, put back after a test that commits.

Django's ``flush`` makes content types, permissions and roles anew: 0.1 s of processor time after each of 700 tests.
"""

from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import TransactionTestCase

Rows = list[tuple[Any, ...]]


class Baseline:
    """The rows of every table of a model, read when the database is new."""

    def __init__(self) -> None:
        self._vendor = connection.vendor
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        with connection.cursor() as cursor:
            self._rows = {name: _rows(cursor, name) for name in map(connection.ops.quote_name, tables)}

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Restore the rows where Django would flush the tables of this one database."""
        flush = TransactionTestCase._fixture_teardown

        def tear_down(case: TransactionTestCase) -> None:
            names = case._databases_names(include_mirrors=False)
            if names == [DEFAULT_DB_ALIAS] and connection.vendor == self._vendor:
                self.restore()
            else:
                flush(case)

        patch.setattr(TransactionTestCase, "_fixture_teardown", tear_down)

    def restore(self) -> None:
        """Put the rows back into tables that have others. As with ``flush``, keys are counted on."""
        with connection.cursor() as cursor:
            changed = {table: rows for table, rows in self._rows.items() if _differs(cursor, table, rows)}
            if not changed:
                return
            with transaction.atomic():
                for table in changed:
                    cursor.execute(f"DELETE FROM {table}")
                for table, rows in changed.items():
                    for row in rows:
                        cursor.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)


def _rows(cursor: CursorWrapper, table: str) -> Rows:
    cursor.execute(f"SELECT * FROM {table}")
    return list(cursor.fetchall())


def _differs(cursor: CursorWrapper, table: str, rows: Rows) -> bool:
    if rows:
        return _rows(cursor, table) != rows
    cursor.execute(f"SELECT 1 FROM {table} LIMIT 1")
    return cursor.fetchone() is not None
