"""Settings, a yard and actors for pools whose database is taken away: one pool of each kind, and one without it."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

KINDS = ("threads", "processes", "gevent")
PLAIN = "plain"
RETRY = RetryPolicy(max_retries=200, base_ms=200, cap_ms=2_000)

YARD = Yard(
    queues=tuple(Queue(name, 1_000, 60_000, 90_000, retry=RETRY) for name in (*KINDS, PLAIN)),
    pools=(
        Pool("threads", "threads", ("threads",), processes=2, slots=4),
        Pool("processes", "processes", ("processes",), processes=2, slots=1, prefetch=1),
        Pool("gevent", "gevent", ("gevent",), processes=1, slots=8),
        Pool("plain", "threads", ("plain",), processes=1, slots=2),
        Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True),
    ),
)
