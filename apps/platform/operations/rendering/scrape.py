"""What Prometheus scrapes: the web for the queue side, every pool for its tasks and workers."""

from __future__ import annotations

from typing import Any

from apps.platform.operations.rendering.processes import METRICS_PORT, WEB_PORT
from broker.topology import Yard

# Half of the shortest time an alert waits, so that no alert rests on one sample.
INTERVAL_S = 10


def config(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/prometheus/prometheus.yml``."""
    return {
        "global": {"scrape_interval": f"{INTERVAL_S}s", "evaluation_interval": f"{INTERVAL_S}s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            _job("web", [f"web:{WEB_PORT}"]),
            *(_job(f"pool-{pool.name}", [f"pool-{pool.name}:{METRICS_PORT}"]) for pool in yard.pools),
        ],
    }


def _job(name: str, targets: list[str]) -> dict[str, Any]:
    return {
        "job_name": name,
        "scrape_timeout": "5s",
        "authorization": {"credentials_file": "/tmp/metrics_token"},  # noqa: S108 - in Prometheus's container
        "dns_sd_configs": [
            {"names": [target.partition(":")[0]], "type": "A", "port": int(target.partition(":")[2])}
            for target in targets
        ],
    }
