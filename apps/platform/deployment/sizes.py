"""Resource limits of a pool, computed from its declaration. Measure your own actors, then adjust the constants."""

from __future__ import annotations

from broker.topology import Pool, PoolKind, Yard

PARENT_MIB = 160
CHILD_MIB: dict[PoolKind, int] = {
    "threads": 320,
    "gevent": 384,
    "processes": 768,  # one picture or PDF at a time, some hundred MiB each at its peak
}
WEB_DATABASE_CONNECTIONS = 40
SPARE_DATABASE_CONNECTIONS = 10


def memory_mib(pool: Pool) -> int:
    """Return the memory a pool's container may use."""
    return PARENT_MIB + pool.processes * CHILD_MIB[pool.kind]


def cpus(pool: Pool) -> float:
    """Return the processors' worth of time a pool may use: a child runs Python on one at a time."""
    return float(max(1, pool.processes))


def pids(pool: Pool) -> int:
    """Return how many processes and threads a pool may have."""
    return 64 + pool.processes * (32 + 2 * pool.slots)


def database_connections(yard: Yard) -> int:
    """Return the connections that the database must offer: every pool's share, the web's, and a reserve."""
    pools = sum(pool.most_connections for pool in yard.pools)
    return pools + WEB_DATABASE_CONNECTIONS + SPARE_DATABASE_CONNECTIONS
