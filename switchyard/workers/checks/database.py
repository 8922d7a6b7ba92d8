"""Checks that ask the database: migrated, room for every process, a bouncer as declared."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TypeVar

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from switchyard import __name__ as library
from switchyard.conf import declared_yard, in_words_of_project
from switchyard.console.formatting import counted
from switchyard.database import RESERVED_CONNECTIONS, planned_connections, pool_size

# Key of OPTIONS -> why it fails behind a bouncer.
FORBIDDEN = {
    "pool": "the bouncer is the pool, and a second one in each process only keeps connections from the others",
    "options": "the bouncer refuses every connection with start-up options",
    "prepare_threshold": "a prepared statement belongs to one connection, and the next transaction may get another",
    "server_side_binding": "it prepares statements, and the next transaction may get another connection",
    "assume_role": "SET ROLE stays with a connection that other clients get next",
}
INSTEAD = {
    "options": "Set them on the role, for example ALTER ROLE name SET lock_timeout = '5s'.",
    "pool": "Leave it out of DATABASE_URL; the bouncer is the pool.",
}


def is_bounced(alias: str) -> bool:
    """Return whether the settings declare that PostgreSQL is reached through a bouncer."""
    connection = connections[alias]
    return connection.vendor == "postgresql" and bool(connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def forbidden_options() -> Iterator[CheckMessage]:
    """E023: an option of a bounced database that fails behind a bouncer, or keeps connections from it."""
    for alias in filter(is_bounced, settings.DATABASES):
        for key, value in connections[alias].settings_dict.get("OPTIONS", {}).items():
            if key in FORBIDDEN and value not in (None, False):
                fact = f"OPTIONS has {key!r}, and the database is behind a bouncer: {FORBIDDEN[key]}"
                hint = INSTEAD.get(key, f"Leave {key} out of OPTIONS, or of DATABASE_URL.")
                yield Error(fact, hint, f"database {alias}", "switchyard.E023")


T = TypeVar("T")


def unmigrated(alias: str) -> Iterator[CheckMessage]:
    """Yield W037 where migrations are not applied; no check of Django's, which ``manage.py migrate`` would print."""
    connection = connections[alias]
    lacks_file = connection.vendor == "sqlite" and not _file_exists(connection)
    applied = () if lacks_file else _asked(lambda own: MigrationRecorder(own).applied_migrations().keys(), connection)
    if applied is not None and (missing := sorted(set(migrations_on_disk(f"{library}.")) - set(applied))):
        number, first = counted(len(missing), "migration"), ".".join(missing[0])
        fact = f"lacks {number}, {first} first, and what needs their tables fails"
        yield Warning(fact, "Run manage.py migrate.", f"database {alias}", "switchyard.W037")


def migrations_on_disk(prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield app and name of each migration of the apps whose names have a prefix; none is imported, and so kept."""
    for config in apps.get_app_configs():
        module = MigrationLoader.migrations_module(config.label)[0] if config.name.startswith(prefix) else None
        if module is None:  # of another app, or of one whose migrations the project has switched off
            continue
        try:
            package = find_spec(module)
        except ModuleNotFoundError:  # MIGRATION_MODULES names what is not there
            continue
        for _, name, is_package in iter_modules((package and package.submodule_search_locations) or ()):
            if not is_package and name[0] not in "_~":
                yield config.label, name


def undeclared_bouncer(alias: str) -> Iterator[CheckMessage]:
    """E023: a bouncer stands before a database whose settings are those of a server."""
    connection = connections[alias]
    if connection.vendor != "postgresql" or is_bounced(alias) or not _asked(bouncer_answers, connection):
        return
    fact = (
        "is reached through a bouncer such as PgBouncer, and its settings are those of a server: cursors and "
        "session settings would belong to connections that other clients get next"
    )
    hint = in_words_of_project("Set DATABASE_BOUNCED=1, or name the server itself.")
    yield Error(fact, hint, f"database {alias}", "switchyard.E023")


def too_few_connections(alias: str) -> Iterator[CheckMessage]:
    """W010: all processes of the yard may open more connections than the server allows; a bouncer shares its own."""
    connection = connections[alias]
    if connection.vendor != "postgresql" or is_bounced(alias):
        return
    allowed = _asked(connections_allowed, connection)
    planned = planned_connections(declared_yard(), pool_size=pool_size(alias))
    if allowed is not None and planned > allowed:
        enough = f"Set max_connections to {planned + RESERVED_CONNECTIONS} or more and restart the server"
        hint = f"{enough}, reduce the slots of pools, or put PgBouncer before it."
        fact = f"allows {allowed} connections, and all processes may open {planned}"
        yield Warning(fact, hint, f"database {alias}", "switchyard.W010")


def connections_allowed(connection: BaseDatabaseWrapper) -> int:
    """Return how many connections a PostgreSQL gives to users without special rights."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        )
        return int(cursor.fetchone()[0])


def bouncer_answers(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a bouncer stands before a PostgreSQL: the connection names another backend than the queries do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = int(cursor.fetchone()[0])
    return connection.connection is not None and connection.connection.info.backend_pid != pid


def _asked(question: Callable[[BaseDatabaseWrapper], T], connection: BaseDatabaseWrapper) -> T | None:
    """Return the answer of a database, or ``None`` when it gives none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _ask(question, connection.alias)
    # uvicorn loads the application inside its event loop, where Django refuses to use a connection.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(_ask, question, connection.alias).result()


def _ask(question: Callable[[BaseDatabaseWrapper], T], alias: str) -> T | None:
    connection = connections[alias]  # of this thread
    was_open = connection.connection is not None
    try:
        return question(connection)
    except DatabaseError:
        return None
    finally:
        if not was_open:
            connection.close()  # no process that is forked later inherits it


def _file_exists(connection: BaseDatabaseWrapper) -> bool:
    name = str(connection.settings_dict["NAME"])
    return ":memory:" in name or "mode=memory" in name or Path(name).exists()
