"""Checks of a database behind a PgBouncer in transaction mode, where each transaction may get another connection.

A database counts as bounced when ``DISABLE_SERVER_SIDE_CURSORS`` is set, as Django's documentation asks for there.
"""

from __future__ import annotations

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import connections

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
    """Return whether the settings say that a bouncer stands before a PostgreSQL."""
    connection = connections[alias]
    return connection.vendor == "postgresql" and bool(connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def forbidden_options() -> list[CheckMessage]:
    """E023: an option of a bounced database that fails behind a bouncer, or keeps connections from it."""
    found: list[CheckMessage] = []
    for alias in filter(is_bounced, settings.DATABASES):
        for key, value in connections[alias].settings_dict.get("OPTIONS", {}).items():
            if key in FORBIDDEN and value not in (None, False):
                fact = f"OPTIONS has {key!r}, and the database is behind a bouncer: {FORBIDDEN[key]}"
                hint = INSTEAD.get(key, f"Leave {key} out of OPTIONS, or of DATABASE_URL.")
                found.append(Error(fact, hint, f"database {alias}", "switchyard.E023"))
    return found
