"""The yard of a project that declares none: everyday and urgent work, each with its pool, and one pool for retries."""

from __future__ import annotations

from broker.topology import Pool, Queue, Yard

SECOND = 1_000

DEFAULT_YARD = Yard(
    queues=(
        # Everybody's actors run here: they may call anything.
        Queue("urgent", objective_ms=80, soft_limit_ms=10 * SECOND, hard_limit_ms=15 * SECOND, calls="other services"),
        Queue(
            "default",
            objective_ms=1 * SECOND,
            soft_limit_ms=60 * SECOND,
            hard_limit_ms=90 * SECOND,
            calls="other services",
        ),
    ),
    pools=(
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4, prefetch=4),
        Pool("default", "threads", ("default",), processes=1, slots=8),
        Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True),
    ),
)
