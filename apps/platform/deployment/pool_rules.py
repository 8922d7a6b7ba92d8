"""Alerts of one pool: gone, crashing, too big.

The web tells of every pool and each pool of itself: the same figure twice, so the larger is taken, never the sum.
"""

from __future__ import annotations

from typing import Any

from apps.platform.deployment import sizes
from apps.platform.deployment.rule import alert
from broker.stores.pool_reports import ON_PURPOSE
from broker.topology import Pool

CRASHES_IN_TEN_MINUTES = 3
MEMORY_SHARE = 0.9


def rules(pool: Pool) -> list[dict[str, Any]]:
    """Return the rules of a pool."""
    return [_down(pool), _crashing(pool), _memory(pool)]


def _down(pool: Pool) -> dict[str, Any]:
    up = f'switchyard_worker_up{{pool="{pool.name}"}}'
    return alert(
        "SwitchyardPoolDown",
        f"max({up}) == 0 or absent({up})",
        hold_s=30,
        severity="page",
        where="workers",
        pool=pool.name,
        summary=f"pool {pool.name}: no child takes work",
        cause="The pool is not running, refused its configuration (exit 78), or cannot reach the broker.",
        next_step=f"Read the log of `manage.py runpool {pool.name}`; `manage.py check` names a mistake in the yard.",
    )


def _crashing(pool: Pool) -> dict[str, Any]:
    restarts = f'increase(switchyard_worker_restarts_total{{pool="{pool.name}",reason!~"{"|".join(ON_PURPOSE)}"}}[10m])'
    return alert(
        "SwitchyardPoolCrashing",
        f"sum(max by (reason) ({restarts})) > {CRASHES_IN_TEN_MINUTES}",
        hold_s=0,
        severity="ticket",
        where="workers",
        pool=pool.name,
        summary=f"pool {pool.name}: {{{{ $value | humanize }}}} children were replaced within ten minutes",
        cause="A task kills its child: a crash in C code, or more memory than there is.",
        next_step="The pool's log names the signal and the messages that ran; move that actor aside or mend it.",
    )


def _memory(pool: Pool) -> dict[str, Any]:
    limit_mib = sizes.memory_mib(pool)
    threshold = int(limit_mib * MEMORY_SHARE) * 1024 * 1024
    return alert(
        "SwitchyardPoolMemory",
        f'max(switchyard_worker_memory_bytes{{pool="{pool.name}"}}) > {threshold}',
        hold_s=300,
        severity="ticket",
        where="workers",
        pool=pool.name,
        summary=f"pool {pool.name}: uses {{{{ $value | humanize1024 }}}}B of its container's {limit_mib} MiB",
        cause="An actor keeps memory, or its work is bigger than the pool was sized for.",
        next_step="Restart the pool to gain time; then raise its size in rendering/sizes.py or mend the actor.",
    )
