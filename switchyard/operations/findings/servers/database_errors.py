"""Why a database did not answer: words of PostgreSQL, its client and PgBouncer, and what helps."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import ProgrammingError

from switchyard.operations.findings.finding import CHECK_DATABASE, Act, Finding, FindingGroup

NEXT = "Check that the server runs and that DATABASE_URL names it; then `manage.py migrate --check`"
TOO_MANY = "More processes than planned for, or connections that are never closed"
# Words, the first that are in an error's text, and why the server was not reached.
REASONS = (
    ("connection refused", "connection refused, nothing listens there"),
    ("resolve host", "the name of its host does not resolve"),
    ("timeout expired", "no answer in time"),
    ("unreachable", "no route to its host"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error.

    Args:
        words: Each stands for this error where it is in the text.
    """

    words: tuple[str, ...]
    code: str
    seen: str
    cause: str
    next: str
    act: Act | None = None


# The first that fits: PostgreSQL names a role in more than one of them.
REFUSALS = (
    Refusal(
        ("too many connections for",),
        "refused",
        "the server's CONNECTION LIMIT of our role or database is reached",
        TOO_MANY,
        "As a superuser: ALTER ROLE name CONNECTION LIMIT -1, or ALTER DATABASE, or lower the slots of pools",
    ),
    Refusal(
        ("too many clients", "remaining connection slots"),
        "refused",
        "the server has no connection left (max_connections)",
        TOO_MANY,
        "Raise max_connections and restart the server, reduce the slots of pools, or put PgBouncer before it",
    ),
    Refusal(
        ("no more connections allowed",),
        "refused",
        "the bouncer has no connection left (max_client_conn)",
        TOO_MANY,
        "Raise max_client_conn in pgbouncer.ini, and RELOAD",
    ),
    Refusal(
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        "refused",
        "the server admits no such host, user or database (pg_hba.conf)",
        "pg_hba.conf has no line for this host and user, or only one with TLS",
        "Add a line to pg_hba.conf on its host, then: SELECT pg_reload_conf()",
        CHECK_DATABASE,
    ),
    Refusal(
        ("server login has been failing", "query_wait_timeout", "server_login_retry"),
        "away",
        "the bouncer answers, and does not reach the server behind it",
        "The server is down, full, or refuses the bouncer's user",
        "On the bouncer's host: read its log, and connect with psql to what [databases] in pgbouncer.ini names",
        CHECK_DATABASE,
    ),
    Refusal(
        ("no such database",),
        "refused",
        "the bouncer knows no database of that name",
        "DATABASE_URL is wrong, or [databases] in pgbouncer.ini lacks it",
        "Add it to [databases] in pgbouncer.ini, and RELOAD, or correct DATABASE_URL",
    ),
    Refusal(
        ("password", "authentication", "role "),
        "refused",
        "the server refuses our user or password",
        "The password was changed on one side only",
        "Correct user and password in DATABASE_URL",
        CHECK_DATABASE,
    ),
    Refusal(
        ("unsupported startup parameter",),
        "bounced",
        "a bouncer stands before the server and refuses our options",
        "DATABASE_BOUNCED is not set",
        "Set DATABASE_BOUNCED=1, and DATABASE_DIRECT_URL to the server itself for migrations",
    ),
)
NO_DATABASE = Refusal(
    (),
    "refused",
    "the server has no database of that name",
    "DATABASE_URL is wrong, or the database was never created",
    "createdb, with the name of DATABASE_URL",
)
NO_TABLES = Refusal(
    (),
    "unmigrated",
    "tables are missing",
    "Migrations of this release were not run, or DATABASE_URL names another database",
    "manage.py migrate",
)
LOCKED = Refusal(
    (), "locked", "the database is locked", "Something holds the writer's lock", "End the transaction that holds it"
)


def database_away(group: FindingGroup, error: Exception) -> Finding:
    """Return the finding for a database that did not answer."""
    message = str(error).lower()
    if found := _refusal(error, message):
        return group.error(found.code, found.seen, found.cause, found.next, act=found.act)
    why = next((words for part, words in REASONS if part in message), type(error).__name__)
    seen = f"the database does not answer ({why})"
    return group.error("away", seen, "It is down, or the address is wrong", NEXT, act=CHECK_DATABASE)


def _refusal(error: Exception, message: str) -> Refusal | None:
    for refusal in REFUSALS:
        if any(words in message for words in refusal.words):
            return refusal
    if "database " in message and "does not exist" in message:
        return NO_DATABASE
    if "no such table" in message or isinstance(error, ProgrammingError):
        return NO_TABLES
    return LOCKED if "locked" in message else None
