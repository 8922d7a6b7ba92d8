"""Readiness of this process: broker and database, each checked within 2 s."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import DatabaseError, OperationalError, ProgrammingError, connection

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.operations.server_state import read_broker_state
from switchyard.operations.timeouts import NoAnswer, TimedCall

TIMEOUT_S = 2.0
# Every migrated yard has it.
_TABLE = "switchyard_dead_letters_deadletter"


@dataclass(frozen=True, slots=True)
class Dependency:
    """State of one dependency; ``fact`` is a description without address or secret."""

    name: str
    ok: bool
    fact: str


def _ask_broker() -> str:
    """Return why the broker accepts no work or may lose it, "" when it is healthy.

    What stops some queues is no reason: this process takes work for the others.
    """
    found = facilities()
    server = read_broker_state(found)
    if server.refusal:
        return f"accepts no work: {server.refusal}"
    if server.pools_known:
        found.pools.read_all()
    return "; ".join(error.seen for error in server.errors if not error.partial)


def _ask_database() -> str:
    """Return what is missing in a database that answers, "" when it has this library's tables."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {_TABLE} LIMIT 1")  # noqa: S608  a constant
    except (OperationalError, ProgrammingError):
        # Databases report a missing table by different errors.
        if _TABLE in connection.introspection.table_names():
            raise
        return f"table {_TABLE} is missing; run `manage.py migrate`"
    finally:
        connection.close()
    return ""


# One for each process: a dependency that hangs blocks one thread, however many probes come.
BROKER = TimedCall("broker", _ask_broker)
DATABASE = TimedCall("database", _ask_database)


def dependencies() -> tuple[Dependency, ...]:
    """Check the broker and the database; takes at most 2 s each."""
    return _checked("broker", BROKER), _checked("database", DATABASE)


def _checked(name: str, call: TimedCall[str]) -> Dependency:
    try:
        wrong = call.result(TIMEOUT_S)
    except NoAnswer:
        wrong = f"no answer within {TIMEOUT_S:g} s"
    except BrokerError as error:
        wrong = error.kind
    except DatabaseError as error:  # its text may contain addresses and users
        wrong = type(error).__name__
    return Dependency(name, not wrong, wrong or "answers")
