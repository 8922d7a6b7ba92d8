"""Migrations on PostgreSQL beside those who write to the table meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import NotSupportedError, connection, models, transaction
from django.db.migrations import (
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    RemoveField,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from switchyard.history.models import SearchValue
from switchyard.online_migrations import AddIndexOnline
from tests.chaos.postgres import PostgresUnderTest
from tests.integration.history import test_large
from tests.waiting import wait_for

APP, TABLE = "switchyard_history", SearchValue._meta.db_table
INDEX = models.Index(fields=["finished_at"], name="tried_index")
WRITE = f"INSERT INTO {TABLE} (name, value, job_id, finished_at) VALUES ('n', %s, 'job', 1)"
WRITE_ANOTHER = WRITE.replace("%s", "gen_random_uuid()")  # a job has a value once
READ = f"SELECT job_id FROM {TABLE} LIMIT 1"
COLUMNS = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{TABLE}'"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('tried_index')"

pytestmark = pytest.mark.usefixtures("on_postgres")


@pytest.fixture
def state(on_postgres: None) -> Iterator[ProjectState]:
    """The models of the history; what a test adds to its table is removed."""
    yield MigrationLoader(connection).project_state()
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS tried_index")
        cursor.execute(f"ALTER TABLE {TABLE} DROP COLUMN IF EXISTS tried")


def migrate(operation: Operation, state: ProjectState, *, atomic: bool) -> ProjectState:
    """Run an operation as a migration does, and return the state after it."""
    after = state.clone()
    operation.state_forwards(APP, after)
    with connection.schema_editor(atomic=atomic) as editor:
        operation.database_forwards(APP, editor, state, after)
    return after


@pytest.mark.parametrize(("operation", "holds_up"), [(AddIndex, True), (AddIndexOnline, False)])
def test_an_index_that_waits_for_one_writer_holds_up_the_others_unless_it_is_built_online(
    operation: type[AddIndex], holds_up: bool, state: ProjectState, postgres: PostgresUnderTest
) -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%' AND wait_event_type = 'Lock'"
    held_up: list[bool] = []

    def write(first: psycopg.Connection[Any], second: psycopg.Connection[Any]) -> None:
        wait_for(lambda: postgres.execute(waits) == [(1,)], what="the index to wait")
        try:
            second.execute(WRITE, ["second"])
            held_up.append(False)
        except psycopg.errors.LockNotAvailable:
            held_up.append(True)
        finally:
            second.rollback()
            first.commit()

    with psycopg.connect(postgres.url) as first, psycopg.connect(postgres.url) as second:
        second.execute("SET lock_timeout = '300ms'")
        second.commit()
        first.execute(WRITE, ["first"])
        writer = threading.Thread(target=write, args=(first, second))
        writer.start()
        migrate(operation("searchvalue", INDEX), state, atomic=operation is AddIndex)
        writer.join(30)

    assert held_up == [holds_up]
    assert postgres.execute(VALID) == [(True,)]


def test_an_index_that_broke_off_is_built_anew(state: ProjectState, postgres: PostgresUnderTest) -> None:
    migrate(AddIndexOnline("searchvalue", INDEX), state, atomic=False)
    postgres.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('tried_index')")

    migrate(AddIndexOnline("searchvalue", INDEX), state, atomic=False)

    assert postgres.execute(VALID) == [(True,)]


def test_an_index_is_dropped_online_and_needs_no_transaction(state: ProjectState, postgres: PostgresUnderTest) -> None:
    operation = AddIndexOnline("searchvalue", INDEX)
    after = migrate(operation, state, atomic=False)

    with connection.schema_editor(atomic=False) as editor:
        operation.database_backwards(APP, editor, after, state)
    with transaction.atomic(), pytest.raises(NotSupportedError, match="atomic = False"):
        migrate(operation, state, atomic=False)

    assert postgres.execute(VALID) == []


def test_a_field_leaves_in_two_releases_and_neither_is_refused_meanwhile(
    state: ProjectState, postgres: PostgresUnderTest
) -> None:
    of_the_old_release = WRITE.replace("finished_at)", "finished_at, tried)").replace("1)", "1, 1)")
    nullable = models.IntegerField(null=True)
    state = migrate(AddField("searchvalue", "tried", models.IntegerField(default=0)), state, atomic=True)

    state = migrate(AlterField("searchvalue", "tried", nullable), state, atomic=True)
    leave = SeparateDatabaseAndState(state_operations=[RemoveField("searchvalue", "tried")])
    state = migrate(leave, state, atomic=True)
    with connection.cursor() as cursor:
        cursor.execute(of_the_old_release, ["of the old release"])
        cursor.execute(WRITE, ["of the new release"])
    assert ("tried",) in postgres.execute(COLUMNS)

    again = SeparateDatabaseAndState(state_operations=[AddField("searchvalue", "tried", nullable)])
    state = migrate(again, state, atomic=True)
    state = migrate(RemoveField("searchvalue", "tried"), state, atomic=True)
    assert ("tried",) not in postgres.execute(COLUMNS)
    assert "tried" not in state.models[APP, "searchvalue"].fields


def test_a_name_changes_in_the_code_alone(state: ProjectState, postgres: PostgresUnderTest) -> None:
    before = postgres.execute(COLUMNS)
    field = state.models[APP, "searchvalue"].fields["value"].clone()
    field.db_column = "value"

    for operation in (
        AlterField("searchvalue", "value", field),
        RenameField("searchvalue", "value", "content"),
        AlterModelTable("searchvalue", TABLE),
        RenameModel("SearchValue", "Word"),
    ):
        state = migrate(operation, state, atomic=True)

    assert "content" in state.models[APP, "word"].fields
    assert postgres.execute(COLUMNS) == before


class User:
    """Runs a statement again and again until it is refused, and notes the longest time that one took."""

    def __init__(self, url: str, statement: str) -> None:
        self._stop, self.longest_ms, self.count, self.refused = threading.Event(), 0.0, 0, False
        self._thread = threading.Thread(target=self._run, args=(url, statement))

    def _run(self, url: str, statement: str) -> None:
        with psycopg.connect(url, autocommit=True) as client:
            while not self._stop.wait(0.002):
                started_s = time.monotonic()
                try:
                    client.execute(statement)
                except psycopg.errors.NotNullViolation:  # Django leaves no default, and the old code names no value
                    self.refused = True
                    return
                self.count += 1
                self.longest_ms = max(self.longest_ms, (time.monotonic() - started_s) * 1000)

    def wait_for_another(self) -> None:
        """Wait for the end of a statement that began afterwards."""
        before = self.count
        wait_for(lambda: self.refused or self.count > before + 1)

    def __enter__(self) -> User:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(60)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_what_each_operation_costs_the_users_of_five_million_rows(
    state: ProjectState, postgres: PostgresUnderTest
) -> None:
    test_large.fill("postgres")
    nullable = AddField("searchvalue", "tried", models.IntegerField(null=True))
    not_null = models.IntegerField(default=0)
    operations: list[tuple[str, Operation, Operation | None]] = [
        ("AddIndex", AddIndex("searchvalue", INDEX), None),
        ("AddIndexOnline", AddIndexOnline("searchvalue", INDEX), None),
        ("AddField, null", nullable, None),
        ("AddField, db_default", AddField("searchvalue", "tried", models.IntegerField(db_default=0)), None),
        ("AddField, NOT NULL with default", AddField("searchvalue", "tried", not_null), None),
        ("AlterField to bigint", AlterField("searchvalue", "tried", models.BigIntegerField(null=True)), nullable),
    ]
    found, refused = {}, []
    for name, operation, first in operations:
        before = migrate(first, state, atomic=True) if first else state
        with User(postgres.url, WRITE_ANOTHER) as writer, User(postgres.url, READ) as reader:
            started_s = time.monotonic()
            migrate(operation, before, atomic=not isinstance(operation, AddIndexOnline))
            took_s = time.monotonic() - started_s
            writer.wait_for_another()
        found[name] = writer.longest_ms
        if writer.refused:
            refused.append(name)
        print(
            f"{name}: {took_s:.2f} s; the longest write took {writer.longest_ms:.0f} ms, "
            f"the longest read {reader.longest_ms:.0f} ms"
        )
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX IF EXISTS tried_index")
            cursor.execute(f"ALTER TABLE {TABLE} DROP COLUMN IF EXISTS tried")

    assert found["AddIndexOnline"] < found["AddIndex"] / 4
    assert found["AddField, db_default"] < found["AlterField to bigint"] / 4
    assert refused == ["AddField, NOT NULL with default"]
