"""Three queues, each with a pool of another kind; one that retries, with brief pauses."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

ONCE = RetryPolicy(max_retries=0)
SOON = RetryPolicy(max_retries=3, base_ms=50, cap_ms=100)

YARD = Yard(
    queues=tuple(
        Queue(name, 1_000, soft_limit_ms=20_000, hard_limit_ms=30_000, retry=retry)
        for name, retry in (("default", ONCE), ("threads", ONCE), ("greenlets", ONCE), ("again", SOON))
    ),
    pools=(
        Pool("default", "processes", ("default",), processes=1, slots=1, prefetch=1),
        Pool("threads", "threads", ("threads", "again"), processes=1, slots=4),
        Pool("greenlets", "gevent", ("greenlets",), processes=1, slots=4),
        Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True),
    ),
)
