"""Statements that write rows of the history. Each may be repeated: a later step of a job is never replaced by an older.

Written out, as the ORM's ``bulk_create`` neither compares with the row that is there nor is as quick. SQLite and
PostgreSQL understand them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, models, transaction

from switchyard.history.columns import Rows
from switchyard.history.models import AttemptRow, JobRow, SearchValue

# Of the last failure; they outlast a later attempt that succeeds.
FAILURE: Final = ("failed_at", "error_type", "error_message", "fingerprint")


@dataclass(frozen=True, slots=True)
class Upsert:
    """A statement, and the order of its values."""

    statement: str
    names: tuple[str, ...]

    def run(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, given as values by column."""
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(self.statement, [[row[name] for name in self.names] for row in rows])


def write(rows: Sequence[Rows]) -> None:
    """Write the rows of ended attempts in one transaction.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    with transaction.atomic():
        JOBS.run([row.job for row in rows])
        ATTEMPTS.run([row.attempt for row in rows if row.attempt is not None])
        VALUES.run(
            [
                {"name": name, "value": value, "job_id": row.job["job_id"], "finished_at": row.job["finished_at"]}
                for row in rows
                for name, value in row.values
            ]
        )


def _upsert(model: type[models.Model], key: str, on_conflict: str) -> Upsert:
    table = model._meta.db_table
    names = tuple(str(field.column) for field in model._meta.concrete_fields if not field.primary_key)
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join(["%s"] * len(names))
    statement = f'INSERT INTO "{table}" ({columns}) VALUES ({places}) ON CONFLICT ({key}) {on_conflict}'  # noqa: S608
    return Upsert(statement, names)


def _jobs() -> Upsert:
    table = JobRow._meta.db_table
    changes = []
    for field in JobRow._meta.concrete_fields:
        name = field.column
        if field.primary_key or name == "job_id":
            continue
        new = f'excluded."{name}"'
        if name in FAILURE:
            new = f'CASE WHEN excluded."failed_at" IS NULL THEN "{table}"."{name}" ELSE {new} END'
        changes.append(f'"{name}" = {new}')
    later = f'excluded."sequence" > "{table}"."sequence"'
    return _upsert(JobRow, '"job_id"', f"DO UPDATE SET {', '.join(changes)} WHERE {later}")


def _values() -> Upsert:
    later = f'excluded."finished_at" > "{SearchValue._meta.db_table}"."finished_at"'
    change = f'DO UPDATE SET "finished_at" = excluded."finished_at" WHERE {later}'
    return _upsert(SearchValue, '"job_id", "name", "value"', change)


JOBS, VALUES = _jobs(), _values()
ATTEMPTS = _upsert(AttemptRow, '"job_id", "generation", "attempt"', "DO NOTHING")
