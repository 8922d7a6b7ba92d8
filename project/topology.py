"""The whole yard: every queue, its promise, and the pool that serves it. Everything else reads it from here.

Depths: a waiting job takes 550 bytes of the broker, 1 KB with larger arguments. All queues at their depth take 220 MB,
less than half of the broker's 512 MB; the rest is for records of jobs that have ended.

Memory: the limit of a child is an idle one's 112 to 121 MB, and what the largest messages of its slots take beside each
other. ``recycle_after`` keeps a slow leak below it. ``manage.py switchyard topology`` shows what each container needs.
"""

from switchyard.broker.topology import Dependency, Pool, Queue, RetryPolicy, Yard

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
MB = 1_000_000

# The schedule that senders of Standard Webhooks keep: https://www.standardwebhooks.com
WEBHOOK_RETRIES = RetryPolicy(delays_ms=(5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR))

YARD = Yard(
    queues=(
        Queue("urgent", objective_ms=80, done_objective_ms=5 * SECOND, soft_limit_ms=10 * SECOND,
              hard_limit_ms=15 * SECOND, calls="mail server, database", max_depth=20_000),
        Queue("default", objective_ms=1 * SECOND, soft_limit_ms=60 * SECOND, hard_limit_ms=90 * SECOND,
              calls="mail server", max_depth=50_000),
        Queue("images", objective_ms=10 * SECOND, soft_limit_ms=60 * SECOND, hard_limit_ms=90 * SECOND,
              calls="hosts of pictures", max_depth=20_000),
        Queue("slow", objective_ms=5 * MINUTE, soft_limit_ms=5 * MINUTE, hard_limit_ms=6 * MINUTE,
              calls="database", max_depth=20_000, fair_by="customer_id"),
        Queue("billing", objective_ms=10 * MINUTE, soft_limit_ms=10 * MINUTE, hard_limit_ms=11 * MINUTE,
              calls="database", max_depth=10_000),
        Queue("webhook", objective_ms=1 * SECOND, soft_limit_ms=15 * SECOND, hard_limit_ms=30 * SECOND,
              retry=WEBHOOK_RETRIES, calls="customers' endpoints", max_depth=100_000),
    ),
    pools=(
        # No prefetch: a message that waits behind a running one would miss its 80 ms.
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4, prefetch=4, isolated=2,
             recycle_after=100_000, memory_limit_bytes=240 * MB),
        Pool("default", "threads", ("default",), processes=1, slots=8, isolated=2,
             recycle_after=100_000, memory_limit_bytes=280 * MB),
        # A picture takes up to 300 MB beside its file of 20 MiB. A child with one slot leaves one suspect.
        Pool("images", "processes", ("images",), processes=1, slots=1, prefetch=1, isolated=1,
             recycle_after=1_000, memory_limit_bytes=500 * MB),
        # Retries of pictures take as much: beside other products' in one child they would take those along.
        Pool("images-retry", "processes", ("images-retry",), processes=1, slots=1, prefetch=1, isolated=1,
             recycle_after=1_000, memory_limit_bytes=500 * MB),
        Pool("slow", "processes", ("slow",), processes="cores", slots=1, prefetch=1, nice=10, isolated=1,
             recycle_after=1_000, memory_limit_bytes=400 * MB),
        Pool("billing", "threads", ("billing",), processes=1, slots=4, database_connections=12, isolated=2,
             recycle_after=100_000, memory_limit_bytes=280 * MB),
        Pool("webhook", "gevent", ("webhook",), processes=1, slots=64,
             recycle_after=100_000, memory_limit_bytes=280 * MB),
        Pool("webhook-retry", "gevent", ("webhook-retry",), processes=1, slots=32,
             recycle_after=100_000, memory_limit_bytes=280 * MB),
        # Retries of statements and exports run here as well, up to eight at once.
        Pool("retries", "threads", (), processes=1, slots=8, shared_retries=True, isolated=2,
             recycle_after=100_000, memory_limit_bytes=400 * MB),
    ),
    # Customers' endpoints, each by itself: one that is down costs an attempt each 2 to 10 s, however much waits for it.
    dependencies=(Dependency("webhook"),),
)  # fmt: skip
