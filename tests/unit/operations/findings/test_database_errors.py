"""Errors of databases and hosts, in their own words, are told with their own remedy."""

from __future__ import annotations

import time

import pytest
from django.db import OperationalError, ProgrammingError

from switchyard.operations.findings.actors import MOST_ROWS, host_of, kind_of
from switchyard.operations.findings.database import database_away
from switchyard.operations.findings.finding import FindingGroup

SERVER = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "code", "seen", "step"),
    [
        ('FATAL:  password authentication failed for user "yard"', "refused", "user or password", "Correct user"),
        ('FATAL:  role "yard" does not exist', "refused", "user or password", "Correct user"),
        ('FATAL:  database "nodb" does not exist', "refused", "has no database of that name", "createdb"),
        ('FATAL:  too many connections for role "yard"', "refused", "CONNECTION LIMIT", "ALTER ROLE name CONNECTION"),
        ('FATAL:  too many connections for database "yard"', "refused", "CONNECTION LIMIT", "or ALTER DATABASE"),
        ("FATAL:  sorry, too many clients already", "refused", "max_connections", "Raise max_connections"),
        ("FATAL:  remaining connection slots are reserved for", "refused", "max_connections", "Raise max_connections"),
        ("FATAL:  no more connections allowed (max_client_conn)", "refused", "max_client_conn", "pgbouncer.ini"),
        ("FATAL:  no such database: nodb", "refused", "the bouncer knows no database", "[databases] in pgbouncer.ini"),
        ("FATAL:  server login has been failing, try again later", "away", "the server behind it", "bouncer's host"),
        ("FATAL:  query_wait_timeout", "away", "does not reach the server behind it", "On the bouncer's host"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "yard"', "refused", "pg_hba.conf", "pg_reload_conf()"),
        ("FATAL:  unsupported startup parameter: options", "bounced", "refuses our options", "DATABASE_BOUNCED=1"),
        ("Connection refused\n\tIs the server running on that host?", "away", "nothing listens there", "server runs"),
    ],
)
def test_each_error_has_its_remedy(text: str, code: str, seen: str, step: str) -> None:
    found = database_away(FindingGroup("database"), OperationalError(SERVER + text))

    assert found.code == code and found.severity == "error"
    assert seen in found.seen and step in found.next
    assert "127.0.0.1" not in found.seen + found.next


def test_missing_tables_are_told_with_the_command() -> None:
    found = database_away(FindingGroup("database"), ProgrammingError('relation "jobs" does not exist'))

    assert (found.code, found.next) == ("unmigrated", "manage.py migrate")


def test_a_right_that_is_missing_is_no_missing_table() -> None:
    found = database_away(FindingGroup("database"), ProgrammingError("permission denied for table switchyard_job"))

    assert (found.code, found.seen) == ("refused", "the server refuses our user a right")
    assert "GRANT" in found.next


def test_a_statement_that_the_server_ended_is_no_server_that_is_away() -> None:
    found = database_away(FindingGroup("database"), OperationalError("canceling statement due to statement timeout"))

    assert (found.code, found.seen) == ("refused", "the server ended a statement of ours after its statement_timeout")
    assert "statement_timeout" in found.next


@pytest.mark.parametrize(
    ("error", "because"),
    [
        ('could not extend file "base/5/16437": No space left on device\nHINT: Check', "the database's disk is full"),
        ("database or disk is full", "the database's disk is full"),
        ("[Errno 28] No space left on device: '/media/a.pdf'", "a disk of its workers is full"),
        ("cannot execute INSERT in a read-only transaction", "the database takes no writes"),
        ("attempt to write a readonly database", "the database takes no writes"),
        ("mail server: did not take the mail (452 4.2.2); it is tried again", "the mail server puts it off"),
        ("SMTPDataError: (450, b'4.2.0 Greylisted')", "the mail server puts it off"),
        ("permission denied for table mail_sentmail", "the database refuses its user a right"),
        ("[Errno 13] Permission denied: '/media/a.pdf'", None),
    ],
)
def test_what_a_server_refuses_is_told_by_its_cause(error: str, because: str | None) -> None:
    kind = kind_of([f"OperationalError: {error}"] * 5)

    assert (kind and kind.because) == because


@pytest.mark.parametrize(
    ("error", "host", "fact"),
    [
        (
            "hooks.example.com:8443: refused the connection; try again",
            "hooks.example.com:8443",
            "refused the connection",
        ),
        ("HTTPSConnectionPool(host='api.example.com', port=443)", "api.example.com", ""),
        ("500 for url: https://ada:secret@pay.example.com/v1", "pay.example.com", ""),
        ("division by zero", "", ""),
    ],
)
def test_the_host_is_that_which_most_errors_name(error: str, host: str, fact: str) -> None:
    assert host_of([error] * 5) == (host, fact)


@pytest.mark.parametrize("text", ["a." * 1_000, ("a" * 60 + ".") * 40, "http://" * 300, "a.b: " * 400])
def test_long_answers_of_a_foreign_server_cost_little(text: str) -> None:
    began_s = time.process_time()

    host_of(f"{number} {text}" for number in range(MOST_ROWS))

    assert time.process_time() - began_s < 2
