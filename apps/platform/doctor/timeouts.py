"""A check with a deadline: what hangs or is away becomes a finding, never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import urlsplit

import redis
from django.db import DatabaseError, ProgrammingError, connections

from apps.platform.conf import switchyard_settings
from apps.platform.dead_letters.errors import BROKER_AWAY
from apps.platform.doctor.finding import Finding
from apps.platform.operations.timeouts import NoAnswer, Question

BROKER_NEXT = "Look whether the server runs and which one SWITCHYARD_BROKER_URL names; then `manage.py broker`"
DATABASE_NEXT = "Look whether the server runs and which one DATABASE_URL names; then `manage.py migrate --check`"


def ask(group: str, look: Callable[[], Iterable[Finding]], deadline_s: float) -> list[Finding]:
    """Return what a group of checks finds, or why it cannot say.

    Args:
        deadline_s: The group gets no more time. What hangs stays behind in a thread of its own.
    """

    def run() -> list[Finding]:
        try:
            return list(look())
        finally:
            connections.close_all()  # of this thread

    try:
        return [typed(found) for found in Question(f"doctor {group}", run).answer(deadline_s)]
    except NoAnswer:
        return [_hangs(group, deadline_s)]
    except BROKER_AWAY as error:
        return [broker_away(group, error)]
    except DatabaseError as error:
        return [database_away(group, error)]
    except Exception as error:  # noqa: BLE001  one check that breaks must not keep the others from telling
        seen = f"the checks broke with {type(error).__name__}: {str(error)[:120]}"
        return [Finding(group, "broken", "error", seen, "A defect of the doctor", "Report it with this line")]


def typed(found: Finding) -> Finding:
    """Return a finding whose ``valkey-cli`` can be typed as it is: with the way to the server, never its password."""
    parts = urlsplit(switchyard_settings().broker_url)
    way = f"-s {parts.path}" if parts.scheme == "unix" else '-u "$SWITCHYARD_BROKER_URL"'
    return replace(found, next=found.next.replace("valkey-cli", f"valkey-cli {way}"))


def broker_away(group: str, error: Exception) -> Finding:
    """Return the finding for a broker that did not answer. Never its own words: they hold its address."""
    if isinstance(error, redis.AuthenticationError) or "WRONGPASS" in str(error) or "NOAUTH" in str(error):
        seen = "the server refuses our user or password"
        cause = "The password was changed on one side only"
        return Finding(group, "refused", "error", seen, cause, "Mend user and password in SWITCHYARD_BROKER_URL")
    if isinstance(error, redis.TimeoutError):
        seen = "the server takes connections and does not answer within a second"
        cause = "It is stopped, swaps, or runs a command that takes long"
        return Finding(
            group, "hangs", "error", seen, cause, "Look at its process and its log; it is not to be killed yet"
        )
    seen = f"the server does not answer ({type(error).__name__})"
    return Finding(group, "away", "error", seen, "It is down, or the address is wrong", BROKER_NEXT)


def database_away(group: str, error: Exception) -> Finding:
    """Return the finding for a database that did not answer."""
    words = str(error).lower()
    if "password" in words or "authentication" in words or "role " in words:
        seen, cause = "the server refuses our user or password", "The password was changed on one side only"
        return Finding(group, "refused", "error", seen, cause, "Mend user and password in DATABASE_URL")
    if "database " in words and "does not exist" in words:
        seen, cause = "the server has no database of that name", "DATABASE_URL is wrong, or nobody made it"
        return Finding(group, "refused", "error", seen, cause, "createdb, with the name of DATABASE_URL")
    if "no such table" in words or isinstance(error, ProgrammingError):
        seen, cause = "tables are missing", "Migrations of this release were not run, or it is another database"
        return Finding(group, "unmigrated", "error", seen, cause, "manage.py migrate")
    if "locked" in words:
        seen, cause = "the database is locked", "Something holds the writer's lock"
        return Finding(group, "locked", "error", seen, cause, "End the transaction that holds it")
    seen = f"the database does not answer ({type(error).__name__})"
    return Finding(group, "away", "error", seen, "It is down, or the address is wrong", DATABASE_NEXT)


def _hangs(group: str, deadline_s: float) -> Finding:
    seen = f"no answer within {deadline_s:g} s"
    cause = "What it asks is stopped, overloaded, or behind a network that drops packets"
    return Finding(group, "hangs", "error", seen, cause, "Look at the server's process, its log and the way to it")
