"""Prometheus alert rules: a group for each queue, one for each pool, and one for the yard as a whole."""

from __future__ import annotations

from typing import Any

from apps.platform.deployment import pool_rules, queue_rules, yard_rules
from broker.topology import Yard


def rules(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/prometheus/rules.yml``."""
    return {
        "groups": [
            *({"name": f"queue {queue.name}", "rules": queue_rules.rules(yard, queue)} for queue in yard.queues),
            *({"name": f"pool {pool.name}", "rules": pool_rules.rules(pool)} for pool in yard.pools),
            {"name": "yard", "rules": yard_rules.rules()},
        ]
    }
