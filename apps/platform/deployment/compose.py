"""The compose project: the yard's processes, the stores they need and what watches them."""

from __future__ import annotations

from typing import Any

from apps.platform.deployment import monitoring, processes, stores
from broker.topology import Yard


def project(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/compose.yaml``.

    Stores and Prometheus live on a network that leads nowhere; what talks to the world has a second one.
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
