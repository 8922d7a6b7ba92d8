"""Prometheus's configuration: alert rules of the yard, and scraping of the web and of every pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchyard.broker.stores.pool_reports import ON_PURPOSE
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.console.runbook import runbook_path
from switchyard.deployment import sizes
from switchyard.deployment.alert_rules import POOL_RULES, QUEUE_RULES, YARD_RULES, Rule, Severity
from switchyard.deployment.processes import METRICS_PORT, WEB_PORT

# Half of the shortest time an alert waits, so that no alert rests on one sample.
INTERVAL_S = 10
# Rules of severity "objective" page for queues with an objective of at most this, and open a ticket for the others.
PAGING_OBJECTIVE_MS = 60_000
MEMORY_SHARE = 0.9


def rules(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/prometheus/rules.yml``: a group for each queue and each pool, one for the yard."""
    return {
        "groups": [
            *({"name": f"queue {queue.name}", "rules": _queue_rules(yard, queue)} for queue in yard.queues),
            *({"name": f"pool {pool.name}", "rules": _pool_rules(pool)} for pool in yard.pools),
            {"name": "yard", "rules": [_alert(rule, {}) for rule in YARD_RULES]},
        ]
    }


def scrape_config(yard: Yard) -> dict[str, Any]:
    """Return the content of ``ops/prometheus/prometheus.yml``."""
    return {
        "global": {"scrape_interval": f"{INTERVAL_S}s", "evaluation_interval": f"{INTERVAL_S}s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            _web_job(),
            *(_pool_job(f"pool-{pool.name}") for pool in yard.pools),
        ],
    }


def _queue_rules(yard: Yard, queue: Queue) -> list[dict[str, Any]]:
    paging = queue.objective_ms is not None and queue.objective_ms <= PAGING_OBJECTIVE_MS
    facts = _queue_facts(yard, queue)
    return [
        _alert(rule, facts, objective_severity="page" if paging else "ticket", queue=queue.name)
        for rule in QUEUE_RULES
        if (queue.objective_ms is not None or not rule.needs_objective)
        and (queue.done_objective_ms is not None or not rule.needs_done_objective)
    ]


def _pool_rules(pool: Pool) -> list[dict[str, Any]]:
    return [_alert(rule, _pool_facts(pool), pool=pool.name) for rule in POOL_RULES]


def _alert(
    rule: Rule, facts: Mapping[str, str], *, objective_severity: Severity = "ticket", **labels: str
) -> dict[str, Any]:
    alert: dict[str, Any] = {"alert": rule.name, "expr": rule.expression % facts}
    if rule.hold_s:
        alert["for"] = f"{rule.hold_s}s"
    severity = objective_severity if rule.severity == "objective" else rule.severity
    alert["labels"] = {"severity": severity, "where": rule.where, **labels}
    alert["annotations"] = {
        "summary": rule.summary % facts,
        "cause": rule.cause % facts,
        "next_step": rule.next_step % facts,
        "runbook": runbook_path(rule.steps),
    }
    return alert


def _queue_facts(yard: Yard, queue: Queue) -> dict[str, str]:
    lanes = f"{queue.name}|{queue.retry_lane}"
    pools = "|".join(pool.name for pool in yard.pools_of(queue.name))
    done_s = f"{(queue.done_objective_ms or 0) / 1000:g}"
    objective_s = f"{(queue.objective_ms or 0) / 1000:g}"

    def attempts(outcomes: str) -> str:
        return f'increase(switchyard_messages_total{{queue=~"{lanes}",outcome=~"{outcomes}"}}[5m])'

    return {
        "queue": queue.name,
        "retry_lane": queue.retry_lane,
        "dead_list": queue.dead_list,
        "objective_s": objective_s,
        # A paused queue is late on purpose.
        "late": f'max(switchyard_queue_oldest_age_seconds{{queue="{queue.name}"}}) > {objective_s}\n'
        f'unless max(switchyard_queue_paused{{queue="{queue.name}"}}) == 1',
        "done_objective_s": done_s,
        "ends_late": f'max(switchyard_queue_oldest_unfinished_age_seconds{{queue="{queue.name}"}}) > {done_s}\n'
        f'unless max(switchyard_queue_paused{{queue="{queue.name}"}}) == 1',
        "busy_share": f'sum(max by (pool) (switchyard_worker_slots_busy{{pool=~"{pools}"}}))'
        f' / sum(max by (pool) (switchyard_worker_slots{{pool=~"{pools}"}}))',
        "failed_5m": attempts("retried|dead"),
        "ended_5m": attempts("succeeded|retried|dead"),
        "retries_5m": f'sum(increase(switchyard_retries_total{{queue=~"{lanes}"}}[5m]))',
    }


def _pool_facts(pool: Pool) -> dict[str, str]:
    memory_mib = sizes.memory_mib(pool)
    crashes = f'pool="{pool.name}",reason!~"{"|".join(ON_PURPOSE)}"'
    return {
        "pool": pool.name,
        "up": f'switchyard_worker_up{{pool="{pool.name}"}}',
        "crashes_10m": f"increase(switchyard_worker_restarts_total{{{crashes}}}[10m])",
        "memory_mib": str(memory_mib),
        "memory_threshold_bytes": str(int(memory_mib * MEMORY_SHARE) * 1024 * 1024),
    }


def _web_job() -> dict[str, Any]:
    return {
        "job_name": "web",
        "scrape_timeout": "5s",
        "authorization": {"credentials_file": "/tmp/metrics_token"},  # noqa: S108 - in Prometheus's container
        "static_configs": [{"targets": [f"web:{WEB_PORT}"]}],
    }


def _pool_job(service: str) -> dict[str, Any]:
    # By DNS, so that every container of a scaled pool is scraped.
    return {
        "job_name": service,
        "scrape_timeout": "5s",
        "dns_sd_configs": [{"names": [service], "type": "A", "port": METRICS_PORT}],
    }
