"""The yard of a project that declares none: everyday and urgent work, each with its pool, and one pool for retries."""

from __future__ import annotations

from switchyard.broker.topology import Pool, Queue, Yard

SECOND = 1_000
# Full queues take 200 MB of the broker with jobs of 1 KB; 550 bytes is what a job with short arguments takes.
MAX_DEPTH = 100_000
# An idle child has about 100 MB, most of it the project's code. A container needs four times the limit and 160 MB.
CHILD_BYTES = 500_000_000
# With the web and to spare the yard then opens 88 connections at most: PostgreSQL gives 97 by default.
ISOLATED = 2
# A slow leak ends here.
RECYCLE_AFTER = 100_000

DEFAULT_YARD = Yard(
    queues=(
        # Everybody's actors run here: they may call anything.
        Queue(
            "urgent",
            objective_ms=80,
            done_objective_ms=5 * SECOND,
            soft_limit_ms=10 * SECOND,
            hard_limit_ms=15 * SECOND,
            calls="other services",
            max_depth=MAX_DEPTH,
        ),
        Queue(
            "default",
            objective_ms=1 * SECOND,
            soft_limit_ms=60 * SECOND,
            hard_limit_ms=90 * SECOND,
            calls="other services",
            max_depth=MAX_DEPTH,
        ),
    ),
    pools=(
        Pool(
            "urgent",
            "threads",
            ("urgent",),
            processes=1,
            slots=4,
            prefetch=4,
            isolated=ISOLATED,
            recycle_after=RECYCLE_AFTER,
            memory_limit_bytes=CHILD_BYTES,
        ),
        Pool(
            "default",
            "threads",
            ("default",),
            processes=1,
            slots=8,
            isolated=ISOLATED,
            recycle_after=RECYCLE_AFTER,
            memory_limit_bytes=CHILD_BYTES,
        ),
        Pool(
            "retries",
            "threads",
            (),
            processes=1,
            slots=4,
            shared_retries=True,
            isolated=ISOLATED,
            recycle_after=RECYCLE_AFTER,
            memory_limit_bytes=CHILD_BYTES,
        ),
    ),
)
