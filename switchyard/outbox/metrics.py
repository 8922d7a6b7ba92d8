"""Metrics of the outbox, read from the database at each scrape: they matter most while the broker is away."""

from __future__ import annotations

from django.db import connections
from prometheus_client.core import GaugeMetricFamily, Metric

from switchyard.outbox.rows import figures


def outbox_metrics() -> list[Metric]:
    """Return the metric families, and close the connections of this thread."""
    try:
        waiting, oldest_ms = figures()
    finally:
        connections.close_all()
    count = "Messages in the outbox: committed, and not in the broker yet."
    age = "Age of the oldest message in the outbox; 0 when none waits."
    return [
        GaugeMetricFamily("switchyard_outbox_rows", count, value=waiting),
        GaugeMetricFamily("switchyard_outbox_oldest_seconds", age, value=oldest_ms / 1_000),
    ]
