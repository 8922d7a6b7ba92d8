"""What Prometheus scrapes: the web for the queue side, every pool for its tasks and workers."""

from __future__ import annotations

from typing import Any

from apps.platform.deployment.processes import METRICS_PORT, WEB_PORT
from broker.topology import Yard

# Half of the shortest time an alert waits, so that no alert rests on one sample.
INTERVAL_S = 10


def config(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/prometheus/prometheus.yml``."""
    return {
        "global": {"scrape_interval": f"{INTERVAL_S}s", "evaluation_interval": f"{INTERVAL_S}s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            _web(),
            *(_pool(f"pool-{pool.name}") for pool in yard.pools),
        ],
    }


def _web() -> dict[str, Any]:
    return {
        "job_name": "web",
        "scrape_timeout": "5s",
        "authorization": {"credentials_file": "/tmp/metrics_token"},  # noqa: S108 - in Prometheus's container
        "static_configs": [{"targets": [f"web:{WEB_PORT}"]}],
    }


def _pool(service: str) -> dict[str, Any]:
    # By DNS, so that every container of a scaled pool is scraped.
    return {
        "job_name": service,
        "scrape_timeout": "5s",
        "dns_sd_configs": [{"names": [service], "type": "A", "port": METRICS_PORT}],
    }
