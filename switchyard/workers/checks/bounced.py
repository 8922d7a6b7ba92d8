"""Checks of a database behind a PgBouncer in transaction mode, where each transaction may get another connection.

A database counts as bounced when ``DISABLE_SERVER_SIDE_CURSORS`` is set, as Django's documentation asks for there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import connections

from switchyard.workers.checks.http_clients import own_folders

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
# Parts of a session -> what to write instead.
SESSION_STATE = {
    r"\bpg_(try_)?advisory_(lock|unlock)(_shared|_all)?\b": "Use pg_advisory_xact_lock, which the transaction's end "
    "releases: a session's lock is released on another connection, and so stays for good.",
    r"\A\s*(?-i:LISTEN|listen)\s+[\w\"]+\s*;?\s*\Z": "Listen over a connection to the server itself "
    "(DATABASE_DIRECT_URL): through the bouncer no notification arrives.",
}


def is_bounced(alias: str) -> bool:
    """Return whether the settings say that a bouncer stands before a PostgreSQL."""
    connection = connections[alias]
    return connection.vendor == "postgresql" and bool(connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def bounced_databases() -> list[str]:
    """Return the aliases of the bounced databases."""
    return [alias for alias in settings.DATABASES if is_bounced(alias)]


def forbidden_options() -> list[CheckMessage]:
    """E023: an option of a bounced database that fails behind a bouncer, or keeps connections from it."""
    return [
        Error(
            f"OPTIONS has {key!r}, and the database is behind a bouncer: {FORBIDDEN[key]}",
            hint=INSTEAD.get(key, f"Leave {key} out of OPTIONS, or of DATABASE_URL."),
            obj=f"database {alias}",
            id="switchyard.E023",
        )
        for alias in bounced_databases()
        for key, value in connections[alias].settings_dict.get("OPTIONS", {}).items()
        if key in FORBIDDEN and value not in (None, False)
    ]


def session_state(folders: list[Path] | None = None) -> list[CheckMessage]:
    """E024: a statement in the project's own code whose effect belongs to a session, with a bounced database.

    Args:
        folders: Where to look; ``None`` is every installed app and package of the project.
    """
    if not bounced_databases():
        return []
    found: list[CheckMessage] = []
    for folder in own_folders() if folders is None else folders:
        for path in sorted(folder.rglob("*.py")):
            for line, text, remedy in _statements(path):
                fact = f"{text!r:.60} keeps state in a session, and the database is behind a bouncer"
                found.append(Error(fact, hint=remedy, obj=f"{path}:{line}", id="switchyard.E024"))
    return found


def _statements(path: Path) -> Iterator[tuple[int, str, str]]:
    source = path.read_text(encoding="utf-8")
    if not re.search(r"advisory|LISTEN", source, re.IGNORECASE):
        return
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for pattern, remedy in SESSION_STATE.items():
                if found := re.search(pattern, node.value, re.IGNORECASE):
                    yield node.lineno, found.group().strip(), remedy
