"""Small yards for tests: one queue family, backoff in milliseconds."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard


def small_yard(*, max_retries: int = 5, base_ms: int = 5, cap_ms: int = 20, soft_limit_ms: int = 5_000) -> Yard:
    """Return a yard with the queue ``work``, its retry lane in a pool of its own."""
    policy = RetryPolicy(max_retries=max_retries, base_ms=base_ms, cap_ms=cap_ms)
    return Yard(
        queues=(Queue("work", 1_000, soft_limit_ms, soft_limit_ms * 2, retry=policy),),
        pools=(
            Pool("work", "threads", ("work",), processes=1, slots=4),
            Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True),
        ),
    )
