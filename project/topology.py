"""The whole yard: every queue, its promise, and the pool that serves it. Everything else reads it from here."""

from __future__ import annotations

from broker.topology import Pool, Queue, RetryPolicy, Yard

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

# The schedule that senders of Standard Webhooks keep: https://www.standardwebhooks.com
WEBHOOK_RETRIES = RetryPolicy(delays_ms=(5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR))

YARD = Yard(
    queues=(
        Queue(
            "urgent",
            objective_ms=80,
            soft_limit_ms=10 * SECOND,
            hard_limit_ms=15 * SECOND,
            calls="mail server, database",
        ),
        Queue(
            "default",
            objective_ms=1 * SECOND,
            soft_limit_ms=60 * SECOND,
            hard_limit_ms=90 * SECOND,
            calls="mail server",
        ),
        Queue(
            "images",
            objective_ms=10 * SECOND,
            soft_limit_ms=60 * SECOND,
            hard_limit_ms=90 * SECOND,
            calls="hosts of pictures",
        ),
        Queue("slow", objective_ms=5 * MINUTE, soft_limit_ms=5 * MINUTE, hard_limit_ms=6 * MINUTE, calls="database"),
        Queue(
            "billing",
            objective_ms=10 * MINUTE,
            soft_limit_ms=10 * MINUTE,
            hard_limit_ms=11 * MINUTE,
            calls="database",
        ),
        Queue(
            "webhook",
            objective_ms=1 * SECOND,
            soft_limit_ms=15 * SECOND,
            hard_limit_ms=30 * SECOND,
            retry=WEBHOOK_RETRIES,
            calls="customers' endpoints",
        ),
    ),
    pools=(
        # No prefetch: a message that waits behind a running one would miss its 80 ms.
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4, prefetch=4),
        Pool("default", "threads", ("default",), processes=1, slots=8),
        Pool("images", "processes", ("images",), processes=1, slots=1, prefetch=1),
        Pool("slow", "processes", ("slow",), processes=2, slots=1, prefetch=1, nice=10),
        Pool("billing", "threads", ("billing",), processes=1, slots=4, database_connections=12),
        Pool("webhook", "gevent", ("webhook",), processes=1, slots=64),
        Pool("webhook-retry", "gevent", ("webhook-retry",), processes=1, slots=32),
        Pool("retries", "threads", (), processes=1, slots=8, shared_retries=True),
    ),
)
