"""No migration rewrites a table, or holds up those who use it, or fails the release that still runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.apps import apps
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db import models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    AlterUniqueTogether,
    CreateModel,
    DeleteModel,
    Migration,
    RemoveField,
    RenameField,
    RenameModel,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import NOT_PROVIDED, Field, ForeignKey, GeneratedField, ManyToManyField, Value
from django.db.models.functions import Now, Upper

# Parts of a migration that no column in the database depends on.
OF_PYTHON = frozenset(
    ("blank", "choices", "default", "editable", "error_messages", "help_text", "limit_choices_to", "related_name",
     "validators", "verbose_name")
)  # fmt: skip
# Parts that _takes_a_moment compares by themselves.
LIFTED = frozenset(("null", "db_default", "db_constraint"))
BUILDS = "builds an index and holds up every writer meanwhile; use AddIndexConcurrently, with atomic = False"
CONSTRAINT = (
    "reads the whole table under a lock; for a check use AddConstraintNotValid, and ValidateConstraint in a migration "
    "after it, for uniqueness a unique index that was built online"
)
CHANGE = "may rewrite or read the whole table while nobody can use it; add a column, fill it in batches, change over"
NOT_NULL = (
    "is NOT NULL and its default is Python's: rows of the release that still runs are refused; "
    "use null=True or db_default"
)
IN_USE = (
    "fails the release that still runs, which still reads and writes it; remove it from the state alone "
    "(SeparateDatabaseAndState), and from the database in the next release"
)
RENAMED = "fails the release that still runs, which still reads and writes the old name; keep that with {}"
COMPUTES = "has the database compute a column, and rewrites the whole table; fill a plain column in batches"
UNFILLED = "leaves a NOT NULL column that no release fills any more; alter it to null=True or a db_default before"
POINTS = "leaves a foreign key that refuses deletions of its target; alter it to db_constraint=False before"


def faults_of(migration: Migration, before: ProjectState) -> Iterator[str]:
    """Yield a line for each fault: ``app.migration operation: reason``.

    Args:
        before: State of the models before the migration.
    """
    for operation, reason in _faults(migration.operations, before.clone(), _New(migration.app_label)):
        yield f"{migration.app_label}.{migration.name} {operation.describe()}: {reason}"


class _New:
    """Models and fields that the last release does not use, because this migration brings them.

    A state that gets back a model or field of an earlier release, so that the database can drop it, is the same.
    """

    def __init__(self, app_label: str) -> None:
        self.app_label = app_label
        self._models, self._fields = set[str](), set[tuple[str, str]]()

    def note(self, operation: Operation) -> None:
        """Note what an operation brings, or renames of that."""
        if isinstance(operation, CreateModel):
            self._models.add(operation.name_lower)
        elif isinstance(operation, RenameModel) and operation.old_name_lower in self._models:
            self._models.add(operation.new_name_lower)
        elif isinstance(operation, AddField):
            self._fields.add((operation.model_name_lower, operation.name_lower))
        elif isinstance(operation, RenameField) and self.has(operation):
            self._fields.add((operation.model_name_lower, operation.new_name_lower))

    def has(self, operation: Operation) -> bool:
        """Whether an operation concerns nothing that the last release uses."""
        names = (getattr(operation, name, "") for name in ("model_name", "name", "old_name"))
        model = next(filter(None, names), "").lower()
        field = ""
        if isinstance(operation, RemoveField):
            field = operation.name_lower
        elif isinstance(operation, RenameField):
            field = operation.old_name_lower
        return model in self._models or (model, field) in self._fields


def _faults(operations: Sequence[Operation], state: ProjectState, new: _New) -> Iterator[tuple[Operation, str]]:
    """Yield the faults of operations, and change the state and what is new as they do."""
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            database = state.clone()
            yield from _faults(operation.database_operations, database, new)
            for part in operation.state_operations:
                yield from ((part, reason) for reason in _of_what_stays(part, database, new.app_label))
                new.note(part)
        elif not new.has(operation):
            yield from ((operation, reason) for reason in _reasons(operation, state, new.app_label))
        new.note(operation)
        operation.state_forwards(new.app_label, state)


def _reasons(operation: Operation, state: ProjectState, app_label: str) -> Iterator[str]:
    if isinstance(operation, AddIndex) and not isinstance(operation, AddIndexConcurrently):
        yield BUILDS
    elif isinstance(operation, AddConstraint) and not isinstance(operation, AddConstraintNotValid):
        yield CONSTRAINT
    elif isinstance(operation, AlterUniqueTogether):
        yield "builds an index and holds up every writer meanwhile"
    elif isinstance(operation, RunSQL):
        yield "locks that it takes are unknown; write down here why it may run"
    elif isinstance(operation, RemoveField | DeleteModel):
        yield IN_USE
    elif isinstance(operation, RenameField):
        if not state.models[app_label, operation.model_name_lower].fields[operation.old_name].db_column:
            yield RENAMED.format("db_column, set by an AlterField before")
    elif isinstance(operation, RenameModel):
        if not state.models[app_label, operation.old_name_lower].options.get("db_table"):
            yield RENAMED.format("db_table, set by an AlterModelTable before")
        elif _names_columns(f"{app_label}.{operation.old_name_lower}", state):
            yield "renames columns of a many-to-many table, which the release that still runs reads; keep the name"
    elif isinstance(operation, AlterModelTable):
        usual = f"{app_label}_{operation.name_lower}"
        old = state.models[app_label, operation.name_lower].options.get("db_table")
        if (old or usual) != (operation.table or usual):
            yield RENAMED.format("its db_table")
    elif isinstance(operation, AddField):
        yield from _of_new_field(operation.field)
    elif isinstance(operation, AlterField):
        old_field = state.models[app_label, operation.model_name_lower].fields[operation.name]
        if not _takes_a_moment(operation.name, old_field, operation.field):
            yield CHANGE


def _names_columns(model: str, state: ProjectState) -> bool:
    """Whether a table that Django makes for a many-to-many field has a column named after a model."""
    return any(
        isinstance(field, ManyToManyField)
        and field.remote_field.through is None
        and model in (f"{app_label}.{name}", str(field.remote_field.model).lower())
        for (app_label, name), found in state.models.items()
        for field in found.fields.values()
    )


def _of_what_stays(operation: Operation, database: ProjectState, app_label: str) -> Iterator[str]:
    """Yield why the next release fails on what an operation takes out of the state, where the database keeps it."""
    if isinstance(operation, RemoveField):
        model = database.models[app_label, operation.model_name_lower]
        field = model.fields.get(operation.name)
        if field is not None and not isinstance(field, ManyToManyField | GeneratedField):
            if not field.null and field.db_default is NOT_PROVIDED:
                yield UNFILLED
            if getattr(field, "db_constraint", False):
                yield POINTS
    elif isinstance(operation, DeleteModel) and (app_label, operation.name_lower) in database.models:
        fields = database.models[app_label, operation.name_lower].fields.values()
        if any(getattr(field, "db_constraint", False) for field in fields):
            yield POINTS


def _of_new_field(field: Field[Any, Any]) -> Iterator[str]:
    if isinstance(field, ManyToManyField):
        return
    if field.unique or field.db_index:
        yield BUILDS
    if isinstance(field, GeneratedField):
        if field.db_persist:
            yield COMPUTES
        return
    if _is_plain(field.db_default):
        return
    if field.db_default is not NOT_PROVIDED:
        yield "has a computed db_default, for which the whole table may be rewritten; use a plain value"
    elif not field.null:
        yield NOT_NULL


def _is_plain(db_default: object) -> bool:
    return db_default is not NOT_PROVIDED and isinstance(db_default, Value | int | str | bool | None.__class__)


def _takes_a_moment(name: str, old: Field[Any, Any], new: Field[Any, Any]) -> bool:
    """Whether a change touches no column, or only lifts a constraint, or sets the default of rows to come."""
    lifted = (
        (new.null or not old.null)
        and (old.db_default == new.db_default or _is_plain(new.db_default))
        and (getattr(old, "db_constraint", False) or not getattr(new, "db_constraint", False))
    )
    return lifted and _of_database(name, old) == _of_database(name, new)


def _of_database(name: str, field: Field[Any, Any]) -> tuple[str, dict[str, Any]]:
    _, path, arguments, options = field.deconstruct()
    left = {option: value for option, value in options.items() if option not in OF_PYTHON | LIFTED}
    left["db_column"] = field.db_column or (f"{name}_id" if isinstance(field, ForeignKey) else name)
    return f"{path}{arguments}", left


def test_no_migration_holds_up_the_users_of_a_table():
    loader = MigrationLoader(None)
    found = []
    for app_label, name in sorted(loader.disk_migrations):
        if apps.get_app_config(app_label).name.startswith(("apps.", "switchyard.")):
            before = loader.project_state((app_label, name), at_end=False)
            found += faults_of(loader.disk_migrations[app_label, name], before)

    assert found == []


NAME = models.CharField(max_length=20)
NOTE = models.TextField(null=True)
OWNER = models.ForeignKey("shop.Owner", models.CASCADE, null=True)
UNTIED = models.ForeignKey("shop.Owner", models.CASCADE, null=True, db_constraint=False)
KEPT = models.IntegerField(db_column="kept_count", db_default=0)


def state() -> ProjectState:
    found = ProjectState()
    key = ("id", models.AutoField(primary_key=True))
    found.add_model(ModelState("shop", "Owner", [key]))
    fields = [key, ("name", NAME), ("note", NOTE), ("kept", KEPT), ("owner", OWNER)]
    found.add_model(ModelState("shop", "Thing", fields))
    many = ("owners", models.ManyToManyField("shop.Owner"))
    found.add_model(ModelState("shop", "Many", [key, many], {"db_table": "many"}))
    found.add_model(ModelState("shop", "Loose", [key, ("owner", UNTIED)]))
    return found


def migration(*operations: Any) -> Migration:
    made = Migration("0002_more", "shop")
    made.operations = list(operations)
    return made


INDEX = models.Index(fields=["name"], name="thing_name")
UNIQUE = models.UniqueConstraint(fields=["name"], name="one_name")
COMPUTED = models.GeneratedField(expression=Upper("name"), output_field=models.TextField(), db_persist=True)
READ = models.GeneratedField(expression=Upper("name"), output_field=models.TextField(), db_persist=False)
NULLABLE = models.CharField(max_length=20, null=True)


def of_state(*operations: Any) -> SeparateDatabaseAndState:
    """Return operations that change the state of the models, and leave the database alone."""
    return SeparateDatabaseAndState(state_operations=list(operations))


def created(*fields: tuple[str, Any]) -> CreateModel:
    return CreateModel("Other", [("id", models.AutoField(primary_key=True)), *fields])


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (AddIndex("thing", INDEX), "AddIndexConcurrently"),
        (AddConstraint("thing", UNIQUE), "AddConstraintNotValid"),
        (AddField("thing", "size", models.IntegerField(default=0)), "is NOT NULL"),
        (AddField("thing", "at", models.DateTimeField(db_default=Now())), "computed db_default"),
        (AddField("thing", "code", models.CharField(null=True, db_index=True)), "AddIndexConcurrently"),
        (AddField("thing", "code", models.CharField(null=True, unique=True)), "AddIndexConcurrently"),
        (AlterField("thing", "name", models.CharField(max_length=200)), "may rewrite"),
        (AlterField("thing", "name", models.CharField(max_length=20, db_column="title")), "may rewrite"),
        (AlterField("thing", "note", models.TextField(default="")), "may rewrite"),
        (AlterField("thing", "kept", models.IntegerField(db_column="kept_count")), "may rewrite"),
        (AddField("thing", "upper", COMPUTED), "rewrites the whole table"),
        (RemoveField("thing", "note"), "still reads and writes"),
        (DeleteModel("Thing"), "still reads and writes"),
        (RenameField("thing", "name", "title"), "db_column"),
        (RenameModel("Thing", "Item"), "db_table"),
        (RenameModel("Many", "Several"), "many-to-many"),
        (AlterModelTable("thing", "items"), "still reads and writes"),
        (of_state(RemoveField("thing", "name")), "NOT NULL"),
        (of_state(RemoveField("thing", "owner")), "db_constraint=False"),
        (of_state(DeleteModel("Thing")), "db_constraint=False"),
        (AlterField("loose", "owner", OWNER), "may rewrite"),
        (SeparateDatabaseAndState(database_operations=[RemoveField("thing", "note")]), "still reads and writes"),
        (RunSQL("UPDATE thing SET name = ''"), "unknown"),
    ],
)
def test_an_operation_that_locks_or_rewrites_is_a_fault(operation, reason):
    [fault] = faults_of(migration(operation), state())

    assert fault.startswith("shop.0002_more ") and reason in fault


@pytest.mark.parametrize(
    "operation",
    [
        AddIndexConcurrently("thing", INDEX),
        AddField("thing", "size", models.IntegerField(null=True)),
        AddField("thing", "size", models.IntegerField(db_default=0)),
        AddField("thing", "text", models.TextField(db_default="")),
        AlterField("thing", "name", models.CharField(max_length=20, help_text="Of the thing.", choices=[("a", "A")])),
        AlterField("thing", "name", NULLABLE),
        AlterField("thing", "name", models.CharField(max_length=20, db_default="")),
        AddField("thing", "upper", READ),
        of_state(RemoveField("thing", "note")),
        of_state(RemoveField("thing", "kept")),
        of_state(DeleteModel("Loose")),
        of_state(RemoveField("loose", "owner")),
        AlterField("thing", "owner", UNTIED),
        RenameField("thing", "kept", "count"),
        AlterModelTable("thing", "shop_thing"),
    ],
)
def test_an_operation_that_takes_a_moment_is_none(operation):
    assert list(faults_of(migration(operation), state())) == []


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([AlterField("thing", "name", NULLABLE), of_state(RemoveField("thing", "name"))], id="leave"),
        pytest.param([of_state(AddField("thing", "old", NULLABLE)), RemoveField("thing", "old")], id="drop-column"),
        pytest.param([of_state(created()), DeleteModel("Other")], id="drop-table"),
        pytest.param(
            [
                AlterField("thing", "name", models.CharField(max_length=20, db_column="name")),
                RenameField("thing", "name", "title"),
            ],
            id="rename-field",
        ),
        pytest.param([AlterModelTable("thing", "shop_thing"), RenameModel("Thing", "Item")], id="rename-model"),
        pytest.param(
            [created(("name", NAME)), AddIndex("other", INDEX), RenameModel("Other", "New"), DeleteModel("New")],
            id="new-table",
        ),
        pytest.param([AddField("thing", "size", NULLABLE), RenameField("thing", "size", "length")], id="new-field"),
    ],
)
def test_the_ways_that_the_faults_name_are_none(operations):
    assert list(faults_of(migration(*operations), state())) == []
