"""No migration rewrites a table, or holds up those who use it."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
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
from django.db.migrations.state import ModelState, ProjectState
from django.db.models.functions import Now, Upper

from tests.unit.project.migration_faults import faults_of


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
