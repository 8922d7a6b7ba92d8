"""Resource limits of a pool, computed from its declaration. Measure your own actors, then adjust the pool's limits."""

from __future__ import annotations

from switchyard.broker.pool import SUPERVISOR_BYTES, Pool, PoolKind

POOL_PREFIX = "pool-"  # of a pool's container
MIB = 2**20
# For a child without ``memory_limit_bytes``.
CHILD_MIB: dict[PoolKind, int] = {"threads": 320, "gevent": 384, "processes": 768}
# Files of tasks, such as an export while it is written. They are in memory.
TMP_MIB = 256
# Processors that ``processes="cores"`` stands for in rendered files, which do not depend on the machine.
RENDERED_CORES = 2


def memory_mib(pool: Pool) -> int:
    """Return the memory that a pool's container needs when each child is at its limit.

    Counts the supervisor, the children, a successor, the children for isolated messages, and the files in ``/tmp``.
    """
    guessed_bytes = SUPERVISOR_BYTES + pool.most_children * CHILD_MIB[pool.kind] * MIB
    return -(-(pool.most_memory_bytes or guessed_bytes) // MIB) + TMP_MIB


def cpus(pool: Pool) -> float:
    """Return the processors' worth of time a pool may use: a child runs Python on one at a time."""
    return float(pool.children)


def pids(pool: Pool) -> int:
    """Return how many processes and threads a pool may have."""
    return 64 + (pool.children + pool.most_isolated) * 32 + 2 * (pool.children + 1) * pool.slots


def needs(pool: Pool) -> str:
    """Return what a pool's container needs, with its parts."""
    child = f" of up to {pool.memory_limit_bytes / 1e6:,.0f} MB" if pool.memory_limit_bytes else ""
    return (
        f"{pool.children} children, a successor and {pool.most_isolated} for isolated messages{child}, "
        f"beside their supervisor and {TMP_MIB}M for /tmp, need {memory_mib(pool):,}M"
    )
