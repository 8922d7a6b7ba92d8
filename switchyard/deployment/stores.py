"""Containers of Valkey, which holds the queues, and of PostgreSQL, which holds all other data."""

from __future__ import annotations

from typing import Any

from switchyard.broker.topology import Yard
from switchyard.database_connections import RESERVED_CONNECTIONS, planned_connections
from switchyard.deployment.containers import hardened, healthcheck, required
from switchyard.deployment.sizes import BROKER_DATA_MIB, BROKER_MIB, DATABASE_MIB

# The password reaches the server through a file that only it can read, never through its command line.
VALKEY_START = f"""\
umask 077
printf 'requirepass "%s"\\n' "$$VALKEY_PASSWORD" > /tmp/valkey.conf
exec valkey-server /tmp/valkey.conf --dir /data --appendonly yes --appendfsync everysec \
--maxmemory {BROKER_DATA_MIB}mb --maxmemory-policy noeviction --save ""
"""
VALKEY_ASK = r"""printf 'AUTH %s\nPING\n' "$$VALKEY_PASSWORD" | valkey-cli | grep -q PONG"""


def services(yard: Yard) -> dict[str, Any]:
    """Return the stores. Both keep their data in a volume and are reachable from the yard's network only."""
    return {"valkey": _valkey(), "postgres": _postgres(yard)}


def _valkey() -> dict[str, Any]:
    return {
        "image": "valkey/valkey:8.1.3-alpine",
        "user": "999:1000",
        "entrypoint": ["/bin/sh", "-c"],
        "command": [VALKEY_START],
        "environment": {"VALKEY_PASSWORD": required("VALKEY_PASSWORD")},
        "volumes": ["valkey:/data"],
        "networks": ["yard"],
        "healthcheck": healthcheck("CMD-SHELL", VALKEY_ASK, start_period_s=60),
        "stop_grace_period": "30s",
        **hardened(BROKER_MIB, cpus=1, pids=64),
    }


def _postgres(yard: Yard) -> dict[str, Any]:
    return {
        "image": "postgres:17.6-alpine",
        "user": "70:70",
        "command": ["postgres", "-c", f"max_connections={planned_connections(yard) + RESERVED_CONNECTIONS}"],
        "environment": {
            "POSTGRES_USER": "switchyard",
            "POSTGRES_DB": "switchyard",
            "POSTGRES_PASSWORD": required("POSTGRES_PASSWORD"),
            "PGDATA": "/var/lib/postgresql/data/17",
        },
        "volumes": ["postgres:/var/lib/postgresql/data"],
        "networks": ["yard"],
        "healthcheck": healthcheck("CMD-SHELL", "pg_isready -q -U switchyard -d switchyard"),
        "stop_grace_period": "60s",
        "shm_size": "128m",
        **hardened(DATABASE_MIB, cpus=2),
        "tmpfs": ["/tmp", "/var/run/postgresql:uid=70,gid=70,mode=0775"],  # noqa: S108
    }
