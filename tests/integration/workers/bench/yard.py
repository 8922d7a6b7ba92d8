"""A small yard: one pool of each kind; and others that differ from it in one point, by name."""

import os
from dataclasses import replace
from typing import Any

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

RETRY = RetryPolicy(max_retries=1, base_ms=10, cap_ms=10)

YARD = Yard(
    queues=(
        Queue("urgent", 80, 60_000, 90_000, retry=RETRY),
        Queue("slow", 1_000, 60_000, 90_000, retry=RETRY),
        Queue("webhook", 400, 60_000, 90_000, retry=RETRY),
    ),
    pools=(
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4, prefetch=4),
        Pool("slow", "processes", ("slow",), processes=2, slots=1, prefetch=1, nice=10),
        Pool("webhook", "gevent", ("webhook",), processes=1, slots=8),
        Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True),
    ),
)

ABOVE_BYTES = 200_000_000
CPU = max(os.sched_getaffinity(0))


def _first(**changes: Any) -> Yard:
    return replace(YARD, pools=(replace(YARD.pools[0], **changes), *YARD.pools[1:]))


YARDS = {
    "small": YARD,
    # Children that are replaced after 50 messages, and when they hold more memory than a little.
    "aging": _first(processes=2, recycle_after=50),
    "growing": _first(recycle_above_bytes=ABOVE_BYTES),
    # One pool of four slots.
    "small form": YARD.small(slots=4),
    # Children on one CPU, but for those of a pool.
    "pinned": replace(
        YARD, pools=tuple(pool if pool.name == "retries" else replace(pool, cpus=(CPU,)) for pool in YARD.pools)
    ),
    # Hard limits of 2 s.
    "short": replace(
        _first(slots=1, prefetch=1),
        queues=tuple(replace(queue, soft_limit_ms=1_000, hard_limit_ms=2_000) for queue in YARD.queues),
    ),
    # Retries in greenlets as well: two gevent pools.
    "two gevent": replace(YARD, pools=(*YARD.pools[:3], replace(YARD.pools[3], kind="gevent", slots=4))),
    # Two mistakes: a pool that consumes a dead list, and more slots than database connections.
    "wrong": _first(queues=("urgent", "webhook-dead"), database_connections=2),
}
