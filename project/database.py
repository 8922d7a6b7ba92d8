"""Django's database of this project, from ``DATABASE_URL`` and the variables beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dj_database_url

# Commands that change or read the schema: they connect past a bouncer, to DATABASE_DIRECT_URL.
DIRECT_COMMANDS = frozenset(("migrate", "sqlmigrate", "showmigrations", "dbshell", "inspectdb"))
SESSION = (
    "lock_timeout=5s",
    "tcp_keepalives_idle=10",
    "tcp_keepalives_interval=3",
    "tcp_keepalives_count=3",
    "tcp_user_timeout=20s",  # while an answer is on its way, no keepalive is sent, and the system repeats it for 15 min
)
POOL = {
    "min_size": 0,  # opened on demand: a process that uses no database opens none
    "timeout": 5.0,  # as connect_timeout: a job that gets no connection is retried later
    "max_idle": 60.0,  # as long as workers keep connections without a pool
    # Attempts to reconnect end after 5 s, and the next query begins anew. The default, 300 s with growing pauses, would
    # leave a server unused for up to half a minute after it is back.
    "reconnect_timeout": 5.0,
}


def is_direct(arguments: Sequence[str]) -> bool:
    """Return whether a command line (``sys.argv``) is that of a command which connects past a bouncer."""
    return len(arguments) > 1 and arguments[1] in DIRECT_COMMANDS


def declared(url: str, *, bounced: bool, state_dir: Path) -> dict[str, Any]:
    """Return the entry of ``DATABASES`` for a valid address.

    Args:
        bounced: Whether a PgBouncer in transaction mode stands before the server.
        state_dir: Folder for the database of tests.
    """
    entry: dict[str, Any] = dict(dj_database_url.parse(url))
    if entry["ENGINE"].endswith("sqlite3"):
        return entry | _sqlite(state_dir)
    if entry["ENGINE"].endswith("postgresql"):
        return entry | _postgres(entry.get("OPTIONS", {}), bounced=bounced)
    return entry


def _sqlite(state_dir: Path) -> dict[str, Any]:
    return {
        "ENGINE": "project.sqlite",
        # IMMEDIATE acquires the write lock when a transaction begins: without it, writers that read first fail as
        # "locked".
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA journal_size_limit=67108864",
        },
        # A file, not memory: tests share it between threads and processes, as the yard does.
        "TEST": {"NAME": str(state_dir / "test.sqlite3")},
    }


def _postgres(given: dict[str, Any], *, bounced: bool) -> dict[str, Any]:
    # A server that vanished is noticed within 20 s, and a job that waits for a lock is retried later: nothing else ends
    # such a wait but the kill of the whole child at the hard limit. A host that vanished is noticed by the server as
    # soon: until then it keeps the locks of its transactions, with the system's defaults for two hours.
    options = {
        "application_name": "switchyard",  # by which our connections are told from those of other programs
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": " ".join(f"-c {setting}" for setting in SESSION),
        **given,
    }
    entry: dict[str, Any] = {"OPTIONS": options}
    if pool := options.pop("pool", 0):
        options["pool"] = POOL | {"max_size": pool}
        entry["CONN_HEALTH_CHECKS"] = True
    if bounced:
        # A cursor on the server belongs to one connection, and the next transaction may get another.
        entry["DISABLE_SERVER_SIDE_CURSORS"] = True
        if "options" not in given:  # the bouncer refuses them; see docs/how-to/run-on-postgresql.md for the timeout
            del options["options"]
    return entry
