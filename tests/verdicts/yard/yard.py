"""Queues with promises from 80 ms on, as few pools as the situations need."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard

RETRY = RetryPolicy(max_retries=2, base_ms=500, cap_ms=2_000)

YARD = Yard(
    queues=(
        Queue("urgent", 80, 20_000, 30_000, retry=RETRY),
        Queue("default", 1_000, 20_000, 30_000, retry=RETRY),
        Queue("hooks", 1_000, 20_000, 30_000, retry=RETRY),
        Queue("reports", 1_000, 20_000, 30_000, retry=RETRY, done_objective_ms=1_500),
    ),
    pools=(
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4),
        Pool("default", "threads", ("default",), processes=1, slots=8),
        Pool("hooks", "threads", ("hooks", "reports"), processes=1, slots=4),
        Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True),
    ),
)
