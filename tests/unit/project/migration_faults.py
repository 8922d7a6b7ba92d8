"""Faults of migrations: operations that hold up the users of a table, or fail the release that still runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterUniqueTogether,
    CreateModel,
    Migration,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, Field, ManyToManyField, Value

from apps.platform.online_migrations import AddIndexOnline

# Parts of a migration that no column in the database depends on.
OF_PYTHON = frozenset(
    ("blank", "choices", "default", "editable", "error_messages", "help_text", "limit_choices_to", "related_name",
     "validators", "verbose_name")
)  # fmt: skip
INDEX = "builds an index and holds up every writer meanwhile; use AddIndexOnline of apps.platform.online_migrations"
CONSTRAINT = (
    "reads the whole table under a lock; for a check use AddConstraintNotValid, and ValidateConstraint in a migration "
    "after it, for uniqueness a unique index that was built online"
)
CHANGE = "may rewrite or read the whole table while nobody can use it; add a column, fill it in batches, change over"
NOT_NULL = (
    "is NOT NULL and its default is Python's: rows of the release that still runs are refused; "
    "use null=True or db_default"
)


def faults_of(migration: Migration, before: ProjectState) -> Iterator[str]:
    """Yield a line for each fault: ``app.migration operation: reason``.

    Args:
        before: State of the models before the migration.
    """
    state, created = before.clone(), set()
    for operation in _database_operations(migration.operations):
        if isinstance(operation, CreateModel):
            created.add(operation.name_lower)  # an empty table that nobody uses
        elif getattr(operation, "model_name", getattr(operation, "name", "")).lower() not in created:
            for reason in _reasons(operation, state, migration.app_label):
                yield f"{migration.app_label}.{migration.name} {operation.describe()}: {reason}"
        operation.state_forwards(migration.app_label, state)


def _database_operations(operations: list[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from _database_operations(operation.database_operations)
        else:
            yield operation


def _reasons(operation: Operation, state: ProjectState, app_label: str) -> Iterator[str]:
    if isinstance(operation, AddIndex) and not isinstance(operation, AddIndexOnline | AddIndexConcurrently):
        yield INDEX
    elif isinstance(operation, AddConstraint) and not isinstance(operation, AddConstraintNotValid):
        yield CONSTRAINT
    elif isinstance(operation, AlterUniqueTogether):
        yield "builds an index and holds up every writer meanwhile"
    elif isinstance(operation, RunSQL):
        yield "locks that it takes are unknown; write down here why it may run"
    elif isinstance(operation, AddField):
        yield from _of_new_field(operation.field)
    elif isinstance(operation, AlterField):
        old = state.models[app_label, operation.model_name_lower].fields[operation.name]
        if _of_database(old) != _of_database(operation.field):
            yield CHANGE


def _of_new_field(field: Field[Any, Any]) -> Iterator[str]:
    if isinstance(field, ManyToManyField):
        return
    if field.unique or field.db_index:
        yield INDEX
    given = field.db_default
    if given is not NOT_PROVIDED and isinstance(given, Value | int | str | bool | None.__class__):
        return
    if given is not NOT_PROVIDED:
        yield "has a computed db_default, for which the whole table may be rewritten; use a plain value"
    elif not field.null:
        yield NOT_NULL


def _of_database(field: Field[Any, Any]) -> tuple[str, dict[str, Any]]:
    _, path, arguments, options = field.deconstruct()
    return f"{path}{arguments}", {name: value for name, value in options.items() if name not in OF_PYTHON}
