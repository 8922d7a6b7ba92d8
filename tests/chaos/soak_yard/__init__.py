"""Settings, a yard and actors for pools in which well-behaved jobs run beside misbehaving ones."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

KINDS = ("threads", "processes", "gevent")
BAD = "-bad"
CEILING_BYTES = 400_000_000

# The good ones may have to wait for a lock, the others are to come to their hard limits soon.
GOOD_RETRY = RetryPolicy(max_retries=20, base_ms=50, cap_ms=1_000)
BAD_RETRY = RetryPolicy(max_retries=1, base_ms=50, cap_ms=50)

YARD = Yard(
    queues=(
        *(Queue(kind, 5_000, 60_000, 90_000, retry=GOOD_RETRY) for kind in KINDS),
        *(Queue(f"{kind}{BAD}", 5_000, 1_500, 3_000, retry=BAD_RETRY) for kind in KINDS),
    ),
    pools=(
        Pool("threads", "threads", ("threads", "threads-bad"), processes=2, slots=4, memory_limit_bytes=CEILING_BYTES),
        Pool("processes", "processes", ("processes", "processes-bad"), processes=2, slots=1,
             memory_limit_bytes=CEILING_BYTES),
        Pool("gevent", "gevent", ("gevent", "gevent-bad"), processes=1, slots=8, memory_limit_bytes=CEILING_BYTES),
        Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True, memory_limit_bytes=CEILING_BYTES),
    ),
)  # fmt: skip
