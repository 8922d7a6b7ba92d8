"""Loaded before Django's settings (``-p tests.environment``): a real Valkey and a state folder for the test run.

``TEST_DATABASE=postgres`` runs the tests on a PostgreSQL of the run's own, ``TEST_DATABASE=pgbouncer`` through a
PgBouncer in transaction mode; without it they run on an SQLite file.
"""

import atexit
import importlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from switchyard.embedded.server import EmbeddedServer

DATABASES = ("sqlite", "postgres", "pgbouncer")
DATABASE = os.environ.get("TEST_DATABASE") or DATABASES[0]
if DATABASE not in DATABASES:
    raise SystemExit(f"TEST_DATABASE: {DATABASE!r} is none of {', '.join(DATABASES)}; leave it out for sqlite")

STATE_DIR = Path(tempfile.mkdtemp(prefix="switchyard-tests-"))
SERVER = EmbeddedServer(STATE_DIR / "valkey").start()


def _started(module: str, server: str, *args: Any) -> Any:
    """Return a running server of ``tests.chaos``, which the tests of the installed wheel do not have."""
    return getattr(importlib.import_module(f"tests.chaos.{module}"), server)(*args).__enter__()


POSTGRES = None if DATABASE == "sqlite" else _started("postgres", "PostgresUnderTest")
PGBOUNCER = _started("pgbouncer", "PgBouncerUnderTest", POSTGRES) if DATABASE == "pgbouncer" else None


def _clean_up() -> None:
    for server in (PGBOUNCER, POSTGRES):
        if server:
            server.remove()
    SERVER.stop()
    shutil.rmtree(STATE_DIR, ignore_errors=True)


atexit.register(_clean_up)

# A shell that runs this in the background ignores SIGINT, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

for variable in [name for name in os.environ if name.startswith(("SWITCHYARD_", "DJANGO_", "DATABASE_"))]:
    if variable != "DJANGO_SETTINGS_MODULE":
        del os.environ[variable]
os.environ["SWITCHYARD_STATE_DIR"] = str(STATE_DIR)
os.environ["SWITCHYARD_BROKER_URL"] = SERVER.url
if POSTGRES:
    os.environ["DATABASE_URL"] = (PGBOUNCER or POSTGRES).url
if POSTGRES and PGBOUNCER:
    os.environ |= {"DATABASE_BOUNCED": "1", "DATABASE_DIRECT_URL": POSTGRES.url}
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(STATE_DIR / "metrics")
# The number that `processes="cores"` stands for, on whatever machine.
os.environ["SWITCHYARD_CORES"] = "2"
(STATE_DIR / "metrics").mkdir()
