"""A small yard: one pool of each kind."""

from __future__ import annotations

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
