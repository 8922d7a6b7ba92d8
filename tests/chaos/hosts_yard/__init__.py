"""Settings, a yard and actors for pools and schedulers on two hosts that share nothing but servers."""

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from tests.chaos.load import QUEUE

PACED, TICKS = "paced", "ticks"
PACED_PER_S = 10
RETRY = RetryPolicy(max_retries=20, base_ms=100, cap_ms=1_000)

YARD = Yard(
    queues=tuple(Queue(name, 1_000, 60_000, 90_000, retry=RETRY) for name in (QUEUE, PACED, TICKS)),
    pools=(
        Pool("work", "threads", (QUEUE, PACED), processes=2, slots=4),
        Pool("ticks", "threads", (TICKS,), processes=1, slots=2),
        Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True),
    ),
)
