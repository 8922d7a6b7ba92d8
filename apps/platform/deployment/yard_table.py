"""The declared yard as text tables and as plain data."""

from __future__ import annotations

from typing import Any

import dramatiq

from apps.platform.console.formatting import whole_duration
from broker.topology import Pool, Queue, Yard


def as_dict(yard: Yard) -> dict[str, Any]:
    """Return the yard as plain data: durations in ms, as declared."""
    actors = _actors_by_queue()
    return {
        "queues": [_queue(yard, queue, actors.get(queue.name, [])) for queue in yard.queues],
        "pools": [_pool(yard, pool) for pool in yard.pools],
    }


def as_text(yard: Yard) -> str:
    """Return the yard as two tables, queues and pools."""
    data = as_dict(yard)
    queues = [
        [
            queue["name"],
            _objective(queue["objective_ms"]),
            f"{whole_duration(queue['soft_limit_ms'])} / {whole_duration(queue['hard_limit_ms'])}",
            _retry_text(queue["retry"]),
            ", ".join(queue["pools"]) or "none",
            ", ".join(queue["retry_pools"]) or "none",
            ", ".join(queue["actors"]) or "none",
        ]
        for queue in data["queues"]
    ]
    pools = [
        [
            pool["name"],
            pool["kind"],
            f"{pool['processes']} x {pool['slots']}",
            str(pool["prefetch"]),
            str(pool["nice"]),
            str(pool["database_connections"]),
            ", ".join(pool["serves"]),
        ]
        for pool in data["pools"]
    ]
    return "\n\n".join(
        [
            _table(["queue", "starts within", "limit soft / hard", "retries", "pool", "retry pool", "actors"], queues),
            _table(["pool", "kind", "children x slots", "prefetch", "nice", "db connections", "serves"], pools),
        ]
    )


def _actors_by_queue() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, actor in sorted(dramatiq.get_broker().actors.items()):
        found.setdefault(actor.queue_name, []).append(name)
    return found


def _queue(yard: Yard, queue: Queue, actors: list[str]) -> dict[str, Any]:
    return {
        "name": queue.name,
        "objective_ms": queue.objective_ms,
        "soft_limit_ms": queue.soft_limit_ms,
        "hard_limit_ms": queue.hard_limit_ms,
        "retry": {
            "max_retries": queue.retry.max_retries,
            "base_ms": queue.retry.base_ms,
            "cap_ms": queue.retry.cap_ms,
            "own_backoff": queue.retry.backoff is not None,
        },
        "pools": [pool.name for pool in yard.pools_of(queue.name)],
        "retry_lane": queue.retry_lane,
        "retry_pools": [pool.name for pool in yard.pools_of(queue.retry_lane)],
        "dead_list": queue.dead_list,
        "actors": actors,
    }


def _pool(yard: Yard, pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "kind": pool.kind,
        "processes": pool.processes,
        "slots": pool.slots,
        "prefetch": 2 * pool.slots if pool.prefetch is None else pool.prefetch,
        "nice": pool.nice,
        "cpus": list(pool.cpus),
        "database_connections": pool.most_connections,
        "serves": list(yard.served_by(pool)),
    }


def _retry_text(retry: dict[str, Any]) -> str:
    if retry["own_backoff"]:
        return f"{retry['max_retries']}, own backoff"
    return f"{retry['max_retries']}, {whole_duration(retry['base_ms'])} doubling to {whole_duration(retry['cap_ms'])}"


def _objective(ms: int | None) -> str:
    return "no promise" if ms is None else whole_duration(ms)


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, rule, *rows]
    )
    return "\n".join(line.rstrip() for line in lines)
