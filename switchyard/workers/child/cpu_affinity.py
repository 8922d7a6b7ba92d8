"""CPU affinity of a pool's children: CPU-bound work leaves the other CPUs to work that must start at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from django.conf import settings

from switchyard.broker.topology import Pool
from switchyard.console.refusal import refuse

logger = logging.getLogger("switchyard.workers")


def usable_cpus() -> frozenset[int] | None:
    """Return the CPUs that this process may use; ``None`` where the platform pins no processes (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def refuse_if_not_pinnable(pools: Iterable[Pool]) -> None:
    """Exit 78 when a pool names a CPU that this process may not use.

    In development the CPU is only warned about, and the pool runs on the CPUs that exist. A platform without pinning
    is warned about as well.
    """
    usable = usable_cpus()
    for pool in pools:
        if not pool.cpus:
            continue
        if usable is None:
            logger.warning("pool %s: cpus is ignored, this platform pins no processes", pool.name)
            continue
        missing = sorted(set(pool.cpus) - usable)
        if not missing:
            continue
        fact = (
            f"pool {pool.name}: cpus names {_listed(missing)}, this process may use {_listed(usable)}; "
            "name some of these in the topology, or leave cpus out"
        )
        if not settings.DEBUG:
            refuse(fact)
        logger.warning("%s", fact)


def pin(pool: Pool) -> None:
    """Pin this process, and the threads and processes it starts later, to a pool's CPUs."""
    usable = usable_cpus()
    if not pool.cpus or usable is None:
        return
    existing = usable.intersection(pool.cpus)
    if existing:
        os.sched_setaffinity(0, existing)
    else:
        logger.warning("pool %s: not pinned, none of its CPUs may be used: %s", pool.name, _listed(pool.cpus))


def _listed(cpus: Iterable[int]) -> str:
    return ", ".join(str(cpu) for cpu in sorted(cpus))
