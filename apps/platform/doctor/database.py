"""The database: reachable, migrated, with room for every pool's connections, and nobody who holds the others up."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apps.platform.conf import declared_yard
from apps.platform.doctor.finding import Finding
from apps.platform.workers.checks.database import made_before

GROUP = "database"
SLOW_MS = 50.0
LOCK_S = 1.0
BLOCKED_S, IDLE_S = 5, 60
NEARLY_ALL = 0.8


def look() -> Iterator[Finding]:
    """Ask the database.

    Raises:
        django.db.DatabaseError: it does not answer.
    """
    if connection.vendor == "sqlite" and not _file_is_there():
        seen = "the SQLite file is not there"
        cause = "Nothing ran here before, or SWITCHYARD_STATE_DIR or DATABASE_URL names another place"
        yield Finding(GROUP, "unmigrated", "error", seen, cause, "manage.py migrate")
        return
    connection.ensure_connection()
    yield _latency()
    if connection.vendor == "sqlite":
        yield from _writer_lock()
    if connection.vendor == "postgresql":
        yield from _connections()
        yield from _blocked()
        yield from _idle_in_transaction()
    yield from _migrations()


def _file_is_there() -> bool:
    # Asking would make an empty one.
    return connection.is_in_memory_db() or Path(connection.settings_dict["NAME"]).exists()  # type: ignore[attr-defined]


def _rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _latency() -> Finding:
    started = time.perf_counter()
    _rows("SELECT 1")
    took_ms = (time.perf_counter() - started) * 1000
    version = ".".join(map(str, connection.get_database_version()))
    seen = f"{connection.display_name} {version}, a query took {took_ms:.1f} ms"
    if took_ms < SLOW_MS:
        return Finding(GROUP, "server", "ok", seen)
    return Finding(GROUP, "slow", "warning", seen, "It is far away or busy", "Look at the server's load")


def _migrations() -> Iterator[Finding]:
    if old := made_before("default"):
        seen = f"{old[0].obj} {old[0].msg}"
        yield Finding(GROUP, str(old[0].id), "error", seen, "It is of an earlier release", str(old[0].hint))
        return
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        yield Finding(GROUP, "migrations", "ok", "every migration is applied")
        return
    first = f"{plan[0][0].app_label}.{plan[0][0].name}"
    seen = f"{len(plan)} migration{'s are' if len(plan) > 1 else ' is'} not applied, {first} first"
    yield Finding(GROUP, "unmigrated", "error", seen, "This release was started without them", "manage.py migrate")


def _writer_lock() -> Iterator[Finding]:
    """Take SQLite's writer's lock for a moment, over a connection whose wait ends soon."""
    if connection.is_in_memory_db():  # type: ignore[attr-defined]
        return
    started = time.perf_counter()
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=LOCK_S, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    except sqlite3.OperationalError:
        seen = f"the writer's lock was not free for {LOCK_S:g} s: nothing can be written"
        cause = "A transaction that is left open, in a task, a shell or another program"
        name = connection.settings_dict["NAME"]
        yield Finding(
            GROUP, "locked", "error", seen, cause, f"fuser -v '{name}'; end the process that should not have it"
        )
    else:
        yield Finding(
            GROUP, "lock", "ok", f"the writer's lock was free after {(time.perf_counter() - started) * 1000:.0f} ms"
        )
    finally:
        other.close()


def _connections() -> Iterator[Finding]:
    [(allowed,)] = _rows(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    )
    [(used,)] = _rows("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    needed = sum(pool.most_connections for pool in declared_yard().pools)
    alone = sum(pool.most_running - pool.total_slots for pool in declared_yard().pools)
    seen = (
        f"{used} of {allowed} connections are open; all pools may open {needed} "
        f"({alone} of them for what runs alone or replaces a child)"
    )
    if used >= NEARLY_ALL * allowed:
        cause = "More processes than were planned for, or connections that nobody closes"
        step = "SELECT application_name, client_addr, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3"
        yield Finding(
            GROUP, "connections_used", "error" if used >= allowed else "warning", seen, cause, f'psql -c "{step}"'
        )
    elif needed >= allowed:
        cause = "max_connections was not raised with the pools; the web needs some as well"
        step = f"Set max_connections to {needed + 50} or more and restart it, or take slots from pools"
        yield Finding(GROUP, "connections_few", "warning", seen, cause, step)
    else:
        yield Finding(GROUP, "connections", "ok", seen)


def _blocked() -> Iterator[Finding]:
    found = _rows(
        "SELECT extract(epoch FROM now() - query_start)::int, pg_blocking_pids(pid) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND now() - query_start > make_interval(secs => %s) ORDER BY query_start",
        BLOCKED_S,
    )
    if found:
        longest_s, blockers = found[0]
        queries = "1 query waits" if len(found) == 1 else f"{len(found)} queries wait"
        seen = f"{queries} for a lock, the longest for {longest_s} s"
        cause = "A transaction that holds it and does not end: a migration, a shell, a long task"
        step = f'psql -c "SELECT pg_terminate_backend({blockers[0] if blockers else "PID"})"'
        yield Finding(GROUP, "locked", "error", seen, cause, step)


def _idle_in_transaction() -> Iterator[Finding]:
    found = _rows(
        "SELECT pid, extract(epoch FROM now() - state_change)::int FROM pg_stat_activity "
        "WHERE state LIKE 'idle in transaction%%' AND now() - state_change > make_interval(secs => %s) "
        "ORDER BY state_change LIMIT 1",
        IDLE_S,
    )
    for pid, idle_s in found:
        seen = f"a transaction is open and idle for {idle_s} s (pid {pid}): it keeps its locks"
        cause = "A task that waits for something else within a transaction, or a shell left open"
        yield Finding(GROUP, "idle", "warning", seen, cause, f'psql -c "SELECT pg_terminate_backend({pid})"')
