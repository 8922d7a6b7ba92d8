"""Migration operation that creates an index while others write to its table."""

from __future__ import annotations

from typing import Any

from django.db import NotSupportedError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AddIndex
from django.db.migrations.state import ProjectState


class AddIndexOnline(AddIndex):
    """Add an index with ``CONCURRENTLY`` on PostgreSQL, and as ``AddIndex`` on other databases.

    ``AddIndex`` holds up every writer of the table until the index is complete. The migration needs ``atomic = False``.
    An index that an earlier, broken attempt left behind is invalid, and is dropped first.
    """

    atomic = False

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Create the index.

        Raises:
            django.db.NotSupportedError: the migration runs in a transaction.
        """
        model = to_state.apps.get_model(app_label, self.model_name)
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        elif self.allow_migrate_model(schema_editor.connection.alias, model):
            editor: Any = self._outside_a_transaction(schema_editor)
            editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {editor.quote_name(self.index.name)}")
            editor.add_index(model, self.index, concurrently=True)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the index.

        Raises:
            django.db.NotSupportedError: the migration runs in a transaction.
        """
        model = from_state.apps.get_model(app_label, self.model_name)
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        elif self.allow_migrate_model(schema_editor.connection.alias, model):
            editor: Any = self._outside_a_transaction(schema_editor)
            editor.remove_index(model, self.index, concurrently=True)

    def _outside_a_transaction(self, schema_editor: BaseDatabaseSchemaEditor) -> BaseDatabaseSchemaEditor:
        if schema_editor.connection.in_atomic_block:
            raise NotSupportedError(
                f"index {self.index.name}: CREATE INDEX CONCURRENTLY does not run in a transaction; "
                "write atomic = False in its migration"
            )
        return schema_editor
