"""Metrics of the room that is left: the broker's memory, this machine's disk, the database's connections."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from django.db import connection, connections
from prometheus_client.core import GaugeMetricFamily, Metric

from switchyard.conf import switchyard_settings
from switchyard.operations.supervisors import ServerState
from switchyard.workers.checks.database import connections_allowed

# Those of clients: a server's own processes count for no limit.
OPEN = """
    SELECT count(*) FROM pg_stat_activity
    WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usename > '' AND datname > ''
"""


def broker_memory(server: ServerState) -> Iterator[Metric]:
    """Yield memory and limit of the broker's fullest server; nothing where no server has a limit."""
    if server.memory is not None:
        used, most = server.memory
        yield GaugeMetricFamily("switchyard_broker_memory_bytes", "Memory of the broker's fullest server.", value=used)
        yield GaugeMetricFamily("switchyard_broker_memory_max_bytes", "Its maxmemory.", value=most)


def disk() -> Iterator[Metric]:
    """Yield size and free space of the disk of the state folder; nothing before something ran here."""
    folder = switchyard_settings().state_dir
    if folder.is_dir():
        usage = shutil.disk_usage(folder)
        text = "Free space of the disk of the state folder."
        yield GaugeMetricFamily("switchyard_disk_free_bytes", text, value=usage.free)
        yield GaugeMetricFamily("switchyard_disk_size_bytes", "Size of that disk.", value=usage.total)


def database_connections() -> list[Metric]:
    """Return open and allowed connections of a PostgreSQL, and close those of this thread; empty for SQLite."""
    if connection.vendor != "postgresql":
        return []
    try:
        allowed = connections_allowed(connection)
        with connection.cursor() as cursor:
            cursor.execute(OPEN)
            used = int(cursor.fetchone()[0])
    finally:
        connections.close_all()
    return [
        GaugeMetricFamily("switchyard_database_connections", "Open connections of all clients.", value=used),
        GaugeMetricFamily("switchyard_database_connections_max", "Connections that users may open.", value=allowed),
    ]
