"""The compose project: the yard's processes, their stores, and monitoring."""

from __future__ import annotations

from typing import Any

from switchyard.broker.topology import Yard
from switchyard.deployment import monitoring, processes, stores


def project(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/compose.yaml``.

    Stores and Prometheus are on an internal network; containers that need the outside have a second one.
    """
    return {
        "name": "switchyard",
        "services": {
            **processes.services(yard),
            **stores.services(yard),
            **monitoring.services(),
        },
        "networks": {"yard": {"internal": True}, "outside": {}},
        "volumes": {"media": {}, "valkey": {}, "postgres": {}, "prometheus": {}, "grafana": {}},
    }
