"""Checks of the database: reachable, migrated, enough connections for every pool, no long-held locks."""

import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.db import ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration
from switchyard.database import RESERVED_CONNECTIONS, planned_connections, pool_size
from switchyard.operations.findings.finding import CHECK_DATABASE, LOOK_AT_WORKERS, Button, Finding, FindingGroup
from switchyard.workers.checks.database import connections_allowed, is_bounced, migrations_on_disk, undeclared_bouncer

NEXT = "Check that the server runs and that DATABASE_URL names it; then `manage.py migrate --check`"
TOO_MANY = "More processes than planned for, or connections that are never closed"
# Words, the first that are in an error's text, and why the server was not reached.
REASONS = (
    ("connection refused", "connection refused, nothing listens there"),
    ("resolve host", "the name of its host does not resolve"),
    ("timeout expired", "no answer in time"),
    ("unreachable", "no route to its host"),
)


class Refusal(NamedTuple):
    """An answer that is an error; each of ``words`` stands for it where it is in the text."""

    words: tuple[str, ...]
    code: str
    seen: str
    cause: str
    next: str
    button: Button | None = None


FULL = Refusal(
    ("too many clients", "remaining connection slots"), "refused",
    "the server has no connection left (max_connections)", TOO_MANY,
    "Raise max_connections and restart the server, reduce the slots of pools, or put PgBouncer before it",
)  # fmt: skip
# The first that fits: PostgreSQL names a role in more than one of them.
REFUSALS = (
    Refusal(("too many connections for",), "refused",
            "the server's CONNECTION LIMIT of our role or database is reached", TOO_MANY,
            "As a superuser: ALTER ROLE name CONNECTION LIMIT -1, or ALTER DATABASE, or lower the slots of pools"),
    FULL,
    Refusal(("no more connections allowed",), "refused", "the bouncer has no connection left (max_client_conn)",
            TOO_MANY, "Raise max_client_conn in pgbouncer.ini, and RELOAD"),
    Refusal(("no pg_hba.conf entry", "pg_hba.conf rejects"), "refused",
            "the server admits no such host, user or database (pg_hba.conf)",
            "pg_hba.conf has no line for this host and user, or only one with TLS",
            "Add a line to pg_hba.conf on its host, then: SELECT pg_reload_conf()", CHECK_DATABASE),
    Refusal(("server login has been failing", "query_wait_timeout", "server_login_retry"), "away",
            "the bouncer answers, and does not reach the server behind it",
            "The server is down, full, or refuses the bouncer's user", "On the bouncer's host: read its log, and "
            "connect with psql to what [databases] in pgbouncer.ini names", CHECK_DATABASE),
    Refusal(("no such database",), "refused", "the bouncer knows no database of that name",
            "DATABASE_URL is wrong, or [databases] in pgbouncer.ini lacks it",
            "Add it to [databases] in pgbouncer.ini, and RELOAD, or correct DATABASE_URL"),
    Refusal(("password", "authentication", "role "), "refused", "the server refuses our user or password",
            "The password was changed on one side only", "Correct user and password in DATABASE_URL", CHECK_DATABASE),
    Refusal(("permission denied",), "refused", "the server refuses our user a right",
            "A GRANT was revoked, or never given", "As the owner of the tables: GRANT it to the user of DATABASE_URL",
            CHECK_DATABASE),
    Refusal(("statement timeout",), "refused", "the server ended a statement of ours after its statement_timeout",
            "statement_timeout of the role, the database or the server is too short, or the server is slow",
            "SHOW statement_timeout, as our user; then ALTER ROLE name SET statement_timeout = '30s', and connect anew",
            CHECK_DATABASE),
    Refusal(("unsupported startup parameter",), "bounced", "a bouncer stands before the server and refuses our options",
            "DATABASE_BOUNCED is not set",
            "Set DATABASE_BOUNCED=1, and DATABASE_DIRECT_URL to the server itself for migrations"),
)  # fmt: skip
NO_DATABASE = Refusal((), "refused", "the server has no database of that name",
    "DATABASE_URL is wrong, or the database was never created", "createdb, with the name of DATABASE_URL")  # fmt: skip
NO_TABLES = Refusal((), "unmigrated", "tables are missing",
    "Migrations of this release were not run, or DATABASE_URL names another database", "manage.py migrate")  # fmt: skip
LOCKED = Refusal((), "locked", "the database is locked",
    "Something holds the writer's lock", "End the transaction that holds it")  # fmt: skip


def database_away(group: FindingGroup, error: Exception) -> Finding:
    """Return the finding for a database that did not answer."""
    message = str(error).lower()
    if found := _refusal(error, message):
        seen, step = found.seen, found.next
        if found is FULL and (last := _COUNTED.get(connection.alias)):
            seen += f"; {last[0]}, counted {duration((time.monotonic() - last[1]) * 1_000)} ago"
            step = f"As a superuser, find whose they are, and end those that should not be: {WHOSE}. Only then: {step}"
        return group.error(found.code, seen, found.cause, step, button=found.button)
    why = next((words for part, words in REASONS if part in message), type(error).__name__)
    seen = f"the database does not answer ({why})"
    return group.error("away", seen, "It is down, or the address is wrong", NEXT, button=CHECK_DATABASE)


def _refusal(error: Exception, message: str) -> Refusal | None:
    if known := next((each for each in REFUSALS if any(words in message for words in each.words)), None):
        return known
    if "database " in message and "does not exist" in message:
        return NO_DATABASE
    if "no such table" in message or isinstance(error, ProgrammingError):
        return NO_TABLES
    return LOCKED if "locked" in message else None


GROUP = FindingGroup("database")
# The fastest of three queries: one alone may have waited for a busy machine.
SLOW_MS, ASKED = 50.0, 3
LOCK_S = 1.0
# A statement of ours waits for a lock for at most 5 s (lock_timeout).
BLOCKED_S, IDLE_S = 2, 60
NEARLY_ALL = 0.8
UNLOCK = "Jobs that wait for the lock go on by themselves then; more slots would only wait as well."


def look() -> Iterator[Finding]:
    if connection.vendor == "sqlite" and not _file_exists():
        seen = "the SQLite file does not exist"
        cause = "First start on this machine, or SWITCHYARD_STATE_DIR or DATABASE_URL names another place"
        yield GROUP.error("unmigrated", seen, cause, "manage.py migrate", button=CHECK_DATABASE)
        return
    connection.ensure_connection()
    yield _latency()
    if connection.vendor == "sqlite":
        yield from _writer_lock()
    if connection.vendor == "postgresql":
        for message in undeclared_bouncer(connection.alias):
            cause = "DATABASE_URL names a bouncer, and DATABASE_BOUNCED is not set"
            yield GROUP.error(str(message.id), f"the database {message.msg}", cause, str(message.hint))
        yield from _read_only()
        yield from _lock_timeout()
        yield from _connections()
        yield from _blocked()
        yield from _idle_in_transaction()


def look_at_migrations() -> Iterator[Finding]:
    """Check that every migration is applied."""
    if connection.vendor == "sqlite" and not _file_exists():
        return
    plan = None
    if set(migrations_on_disk()) - MigrationRecorder(connection).applied_migrations().keys():
        executor = MigrationExecutor(connection)  # imports every migration, and knows what a squashed one replaces
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        yield GROUP.ok("every migration is applied")
        return
    first = f"{plan[0][0].app_label}.{plan[0][0].name}"
    seen = f"{counted(len(plan), 'migration')} {'is' if len(plan) == 1 else 'are'} not applied, {first} first"
    yield GROUP.error("unmigrated", seen, "This release was started without them", "manage.py migrate")


def _file_exists() -> bool:
    # Connecting would create an empty file.
    return connection.is_in_memory_db() or Path(connection.settings_dict["NAME"]).exists()  # type: ignore[attr-defined]


def _rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _latency() -> Finding:
    took_ms = math.inf
    for _ in range(ASKED):
        started = time.perf_counter()
        _rows("SELECT 1")
        took_ms = min(took_ms, (time.perf_counter() - started) * 1_000)
    version = ".".join(map(str, connection.get_database_version()))
    seen = f"{connection.display_name} {version}, a query took {took_ms:.1f} ms"
    if took_ms < SLOW_MS:
        return GROUP.ok(seen)
    return GROUP.warning("slow", seen, "The server is far away or busy", "Check the server's load")


def _writer_lock() -> Iterator[Finding]:
    """Acquire and release SQLite's write lock, over a connection that waits for at most ``LOCK_S``."""
    if connection.is_in_memory_db():  # type: ignore[attr-defined]
        return
    name, before = str(connection.settings_dict["NAME"]), None
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0, isolation_level=None)
    try:
        if not (free := _is_free(other)):
            before = sqlite_writer(name)
            other.execute(f"PRAGMA busy_timeout = {LOCK_S * 1_000:.0f}")
            free = _is_free(other)
        yield GROUP.ok("the write lock is free") if free else _locked(name, before, sqlite_writer(name))
    finally:
        other.close()


def _is_free(other: sqlite3.Connection) -> bool:
    """Return whether a connection gets the write lock, which it gives back at once."""
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    return True


def _locked(name: str, before: tuple[int, str] | None, after: tuple[int, str] | None) -> Finding:
    """Return the finding for a write lock that was not free, from its holders before and after the wait."""
    if before is not None and after is not None and before[0] != after[0]:
        seen = f"the write lock was not free for {LOCK_S:g} s, and changes hands: {before[1]}, then {after[1]}"
        return GROUP.warning("busy", seen, "More is written than SQLite can take", "Use PostgreSQL, or write less")
    holder = after or before
    cause = "A transaction left open in a task, a shell or another program"
    if holder is None:
        seen = f"the database is locked for {LOCK_S:g} s and more: nothing can be written"
        step = f"fuser -v '{name}'; end the process that should not hold it"
        return GROUP.error("locked", seen, cause, step, then=UNLOCK, button=LOOK_AT_WORKERS)
    pid, shown = holder
    seen = f"the database is locked, by {shown}: nothing can be written"
    step = f"Let pid {pid} end its transaction, or end it: kill -TERM {pid}"
    return GROUP.error("locked", seen, cause, step, then=f"{step}. {UNLOCK}", button=LOOK_AT_WORKERS)


WHOSE = 'psql -c "SELECT application_name, client_addr, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3"'
# Ours have our role, database and application name. Of sessions of other roles a plain one does not see the type.
COUNT = """
    SELECT count(*), count(*) FILTER (WHERE ours), mode() WITHIN GROUP (ORDER BY name) FILTER (WHERE NOT ours) FROM (
        SELECT (usename, datname, application_name) IS NOT DISTINCT FROM
            (current_user, current_database(), current_setting('application_name')) AS ours,
            coalesce(nullif(application_name, ''), usename) AS name
        FROM pg_stat_activity
        WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usename > '' AND datname > ''
    ) AS open
"""
# Alias of a database -> the last count of this process, as words, and its time by the monotonic clock.
_COUNTED: dict[str, tuple[str, float]] = {}


def open_connections() -> tuple[int, str]:
    """Return how many clients' connections are open, and whose; kept for when none is left to count them by."""
    [(used, ours, most)] = _rows(COUNT)
    whose = f"{ours} {_are(ours)} ours, {used - ours} {_are(used - ours)} not{f' (most of {most})' if most else ''}"
    _COUNTED[connection.alias] = whose, time.monotonic()
    return used, whose


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _connections() -> Iterator[Finding]:
    allowed, (used, whose) = connections_allowed(connection), open_connections()
    bounced = is_bounced(connection.alias)
    needed = planned_connections(declared_yard(), pool_size=pool_size(connection.alias))
    isolated = sum(pool.most_running - pool.total_slots for pool in declared_yard().pools)
    seen = (
        f"{used} of {counted(allowed, 'connection')} {_are(used)} open: {whose}; all processes may open "
        f"{needed} ({isolated} of them for isolated runs and children that replace another)"
        f"{', through a bouncer that shares its own' if bounced else ''}"
    )
    if used >= NEARLY_ALL * allowed:
        yield GROUP.finding("error" if used >= allowed else "warning", "connections", seen, TOO_MANY, WHOSE)
    elif needed > allowed and not bounced:
        cause, least = "max_connections was not raised with the pools", needed + RESERVED_CONNECTIONS
        others = "reduce the slots of pools, or put PgBouncer before it"
        step = f"Set max_connections to {least} or more and restart the server, {others}"
        yield GROUP.warning("connections", seen, cause, step)
    else:
        yield GROUP.ok(seen)


def _read_only() -> Iterator[Finding]:
    [(read_only, standby)] = _rows("SELECT current_setting('transaction_read_only'), pg_is_in_recovery()")
    if read_only == "on":
        why = "it is a standby" if standby else "default_transaction_read_only is on"
        cause, step = "A failover, or a person", "Let DATABASE_URL name the primary, or end what keeps it read-only"
        yield GROUP.error("locked", f"the database takes no writes: {why}", cause, step, button=CHECK_DATABASE)


def _lock_timeout() -> Iterator[Finding]:
    """Warn of a bounced database without a limit: a process sets its own only where it may send start-up options."""
    [(limit_ms,)] = _rows("SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'")
    if limit_ms == 0 and is_bounced(connection.alias):
        user = connection.settings_dict["USER"]
        seen = "a query waits for a lock without a limit (lock_timeout is 0)"
        cause = "The bouncer refuses the timeout as a start-up option, and the role has none"
        yield GROUP.warning("endless_locks", seen, cause, f"psql -c \"ALTER ROLE {user} SET lock_timeout = '5s'\"")


def _blocked() -> Iterator[Finding]:
    found = _rows(
        "SELECT extract(epoch FROM now() - query_start)::int, pg_blocking_pids(pid) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND now() - query_start > make_interval(secs => %s) ORDER BY query_start",
        BLOCKED_S,
    )
    if found:
        longest_s, blockers = found[0]
        queries = f"{counted(len(found), 'query', 'queries')} wait{'s' if len(found) == 1 else ''}"
        by = _backend(blockers[0]) if blockers else "a backend that ended since"
        seen = f"the database is locked, by {by}: {queries} for the lock, the longest for {longest_s} s"
        cause = "A transaction holds the lock and does not end: a migration, a shell, a long task"
        step = f'psql -c "SELECT pg_terminate_backend({blockers[0] if blockers else "PID"})"'
        then = f"End that transaction: `{step}`. {UNLOCK}"
        yield GROUP.error("locked", seen, cause, step, then=then, button=LOOK_AT_WORKERS)


def _backend(pid: int) -> str:
    rows = _rows("SELECT application_name, state FROM pg_stat_activity WHERE pid = %s", pid)
    return f"pid {pid} ({', '.join(filter(None, rows[0]))})" if rows else f"pid {pid}"


def _idle_in_transaction() -> Iterator[Finding]:
    found = _rows(
        "SELECT pid, extract(epoch FROM now() - state_change)::int FROM pg_stat_activity "
        "WHERE state LIKE 'idle in transaction%%' AND now() - state_change > make_interval(secs => %s) "
        "ORDER BY state_change LIMIT 1",
        IDLE_S,
    )
    for pid, idle_s in found:
        seen = f"a transaction is open and idle for {idle_s} s (pid {pid}) and keeps its locks"
        cause = "A task that waits for something within a transaction, or a shell left open"
        yield GROUP.warning("idle", seen, cause, f'psql -c "SELECT pg_terminate_backend({pid})"')


# Bytes that SQLite locks to write: of the -shm file in WAL mode, of the database itself otherwise.
_WAL_WRITE = range(120, 121)
_RESERVED = range(0x40000000, 0x40000000 + 2)
_LONGEST_COMMAND = 100
# Passwords in a command line, which the overview shows to whoever may see it: in an address, and after a name.
_SECRETS = (
    (re.compile(r"(://)[^/\s]*@"), r"\1…@"),
    (re.compile(r"(?i)([\w-]*(?:pass|pwd|secret|token|key|credential)[\w-]*[= ])\S+"), r"\1…"),
)


def sqlite_writer(database: str | Path, table: Path = Path("/proc/locks")) -> tuple[int, str] | None:
    """Return the process that holds the write lock, its pid alone and in words with its command where that can be read.

    ``None`` where none does, or the kernel does not show it.

    Opening and closing the file would release this process's own locks on it, so its inode is compared instead.
    """
    places: dict[int, range] = {}
    for name, locked in ((f"{database}-shm", _WAL_WRITE), (str(database), _RESERVED)):
        with contextlib.suppress(OSError):
            places[Path(name).stat().st_ino] = locked
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        # ``1: POSIX ADVISORY WRITE 4711 fe:01:1234 120 120``; one that waits has an arrow before its kind.
        if len(words) != 8 or words[1] not in ("POSIX", "OFDLCK") or words[3] != "WRITE":
            continue
        pid, inode, first, last = words[4], words[5].rpartition(":")[2], words[6], words[7]
        if not (inode.isdecimal() and pid.isdecimal() and first.isdecimal()) or int(inode) not in places:
            continue
        locked = places[int(inode)]
        if int(first) in locked and (last == "EOF" or int(last) >= locked.start):
            command = command_of(int(pid))
            return int(pid), f"pid {pid} ({command})" if command else f"pid {pid}"
    return None


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened and without passwords; "" where it cannot be read."""
    import psutil  # a web process that shows no lock goes without

    try:
        command = " ".join(" ".join(psutil.Process(pid).cmdline()).split())
    except psutil.Error:
        return ""
    for secret, hidden in _SECRETS:
        command = secret.sub(hidden, command)
    return command[:_LONGEST_COMMAND]
