"""Check that the database was made by this release's migrations."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

# Migrations of the time when tables had names without "switchyard_"; a project's own apps have none of these names.
REPLACED = frozenset(
    {
        ("dead_letters", "0002_open_letters_by_index"),
        ("jobs", "0002_done_once"),
        ("operations", "0002_dump_stacks"),
    }
)


def made_before(alias: str) -> list[CheckMessage]:
    """Return E021 when a database has tables from before the app labels began with ``switchyard_``.

    A database that does not answer is not checked: it may be up when it is needed. No SQLite file is created.
    """
    connection = connections[alias]
    if connection.vendor == "sqlite" and not _file_exists(connection):
        return []
    if REPLACED.isdisjoint(_applied_migrations(alias)):
        return []
    return [
        Error(
            "was made before the names of its tables began with switchyard_, and no migration leads from there",
            hint=f"Set it aside and make a new one: `{set_aside(connection)}`, then `manage.py migrate`.",
            obj=f"database {alias}",
            id="switchyard.E021",
        )
    ]


def _applied_migrations(alias: str) -> Collection[tuple[str, str]]:
    """Return the migrations that a database has; none when it does not answer."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _read_migrations(alias)
    # uvicorn loads the application inside its event loop, where Django refuses to use a connection.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(_read_migrations, alias).result()


def _read_migrations(alias: str) -> Collection[tuple[str, str]]:
    connection = connections[alias]
    was_open = connection.connection is not None
    try:
        return MigrationRecorder(connection).applied_migrations()
    except DatabaseError:
        return ()
    finally:
        if not was_open:
            connection.close()  # no process that is forked later inherits it


def set_aside(connection: BaseDatabaseWrapper) -> str:
    """Return the command that keeps a database under another name."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        # The write-ahead log moves with its file: SQLite would apply the log to the new file.
        kept = Path(name).parent / "before"
        return f"mkdir '{kept}' && mv '{name}'* '{kept}'"
    if connection.vendor == "postgresql":
        statements = f'ALTER DATABASE "{name}" RENAME TO "{name}_before"', f'CREATE DATABASE "{name}"'
        return "psql postgres" + "".join(f" -c '{statement}'" for statement in statements)
    return f"rename {name} to {name}_before, and create an empty {name}"


def _file_exists(connection: BaseDatabaseWrapper) -> bool:
    name = str(connection.settings_dict["NAME"])
    return ":memory:" in name or "mode=memory" in name or Path(name).exists()
