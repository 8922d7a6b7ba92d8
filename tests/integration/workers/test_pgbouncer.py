"""Behind a real PgBouncer in transaction mode: migrated past it, declared or refused, and no session is relied on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from project.config import BASE_DIR
from tests.chaos.pgbouncer import PgBouncerUnderTest
from tests.chaos.postgres import PostgresUnderTest

pytestmark = pytest.mark.long
FINDINGS = """
import json
from django.core.checks import run_checks
from switchyard.operations.findings import database
checks = [message.id for message in run_checks(databases=["default"])]
print(json.dumps({"checks": checks, "doctor": {one.code: one.next for one in database.look()}}))
"""
# Of two bounced connections to the server each query may use either: a cursor would be looked for on the wrong one.
ITERATE = """
from threading import Barrier, Thread
from django.contrib.auth.models import Permission
from django.db import connection
together, counts = Barrier(4), []
def iterate():
    together.wait(60)
    counts.extend(sum(1 for row in Permission.objects.iterator(chunk_size=3)) for _ in range(5))
    connection.close()
threads = [Thread(target=iterate) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(counts)), len(counts))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with nothing in it, and with fewer connections than the project's own yard may open."""
    with PostgresUnderTest(connections=100) as server:
        yield server


@pytest.fixture(scope="module")
def bouncer(server: PostgresUnderTest) -> Iterator[PgBouncerUnderTest]:
    with PgBouncerUnderTest(server, size=2) as bouncer:
        yield bouncer


@pytest.fixture(scope="module")
def bounced(server: PostgresUnderTest, bouncer: PgBouncerUnderTest, valkey_url: str) -> dict[str, str]:
    """Environment of a project whose database is behind the bouncer, migrated."""
    environment = {
        **os.environ, "SWITCHYARD_BROKER_URL": valkey_url, "DATABASE_URL": bouncer.url, "DATABASE_BOUNCED": "1",
        "DATABASE_DIRECT_URL": server.url,
    }  # fmt: skip
    manage(environment, "migrate", "--verbosity=0")
    return environment


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=150)


def manage(environment: dict[str, str], *arguments: str) -> str:
    done = run(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def findings(environment: dict[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        manage(environment, "shell", "--verbosity=0", "-c", FINDINGS).splitlines()[-1]
    )
    return found


def test_migrations_go_past_the_bouncer_and_nothing_else(bounced, bouncer):
    used = "from django.conf import settings; print(settings.DATABASES['default']['PORT'])"

    shell = manage(bounced, "shell", "--verbosity=0", "-c", used)
    # The bouncer would refuse this start-up option, which the server takes.
    direct = {**bounced, "DATABASE_DIRECT_URL": bounced["DATABASE_DIRECT_URL"] + "?options=-c%20lock_timeout%3D1s"}
    manage(direct, "migrate", "--check")
    warned = run(bounced, "migrate")

    assert "W010" not in warned.stderr, "the others share the bouncer's connections"
    assert shell.strip() == str(bouncer.port)


def test_a_declared_bouncer_is_no_finding_but_its_timeout(bounced, server):
    without = findings(bounced)
    server.execute("ALTER ROLE yard SET lock_timeout = '5s'")
    # Past the connections that the bouncer has opened before.
    server.cut_connections()
    with_timeout = findings(bounced)

    assert {"switchyard.E023", "switchyard.W010"}.isdisjoint(without["checks"])
    assert "ALTER ROLE yard SET lock_timeout" in without["doctor"]["endless_locks"]
    assert "endless_locks" not in with_timeout["doctor"] and "ok" in with_timeout["doctor"]


def test_a_bouncer_that_refuses_our_options_is_told_once(bounced, valkey):
    done = run({**bounced, "DATABASE_BOUNCED": "0"}, "doctor", "--json")
    told = json.loads(done.stdout)

    [error] = [one for one in told["findings"] if one["severity"] == "error"]
    assert error["code"] == "bounced" and "DATABASE_BOUNCED=1" in error["next"]
    left_out = {one["group"] for one in told["findings"] if one["severity"] == "skipped"}
    assert left_out == {"database", "scheduler", "actors", "dead letters", "alerts", "outbox"}
    assert told["exit_code"] == done.returncode == 2


def test_a_bouncer_that_nobody_declared_is_refused(bounced, server):
    with PgBouncerUnderTest(server, ignored="options") as bouncer:
        found = findings({**bounced, "DATABASE_BOUNCED": "0", "DATABASE_URL": bouncer.url})
    direct = findings({**bounced, "DATABASE_BOUNCED": "0", "DATABASE_URL": server.url})

    assert "switchyard.E023" in found["checks"] and "DATABASE_BOUNCED=1" in found["doctor"]["switchyard.E023"]
    assert "switchyard.E023" not in direct["checks"]
    assert "switchyard.W010" in direct["checks"], "100 connections are fewer than this yard may open"


def test_rows_are_iterated_by_threads_that_share_connections(bounced):
    counts = manage(bounced, "shell", "--verbosity=0", "-c", ITERATE)

    assert counts.split() == ["1", "20"]


def test_the_bouncer_of_these_tests_breaks_what_needs_a_session(bouncer):
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(bouncer.url, options="-c lock_timeout=5s")

    with psycopg.connect(bouncer.url, autocommit=True) as one, psycopg.connect(bouncer.url) as other:
        one.execute("DECLARE of_a_session CURSOR WITH HOLD FOR SELECT 1")
        other.execute("SELECT 1")  # its transaction holds the connection that has the cursor
        with pytest.raises(psycopg.errors.InvalidCursorName):
            one.execute("FETCH of_a_session")
