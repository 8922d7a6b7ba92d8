"""The yards that real pools run under chaos; ``CHAOS_YARD`` names one."""

from dataclasses import replace

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from tests.chaos.load import QUEUE
from tests.chaos.load import YARD as LOAD

MB = 1_000_000
BRIEF = "brief"  # a queue whose hard limit is 3 s, served by the same children
ONE_RETRY = RetryPolicy(max_retries=1, base_ms=10, cap_ms=10)
LIMITED = (
    Queue(QUEUE, 1_000, 90_000, 120_000, retry=ONE_RETRY),
    Queue(BRIEF, 1_000, 2_000, 3_000, retry=ONE_RETRY),
    Queue("aside", 1_000, 90_000, 120_000, retry=ONE_RETRY),
)
RETRIES = Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True)
ASIDE = Pool("aside", "threads", ("aside",), processes=1, slots=1)  # no pool may serve every queue
THREADS = Pool("work", "threads", (QUEUE,), processes=4, slots=4)
GREENLETS = Pool("work", "gevent", (QUEUE,), processes=4, slots=4)
PROCESSES = Pool("work", "processes", (QUEUE,), processes=4, slots=1)


def of(pool: Pool) -> Yard:
    """Return a yard of one queue with a pool, and another for retries, with the same ceiling."""
    retries = RETRIES
    if pool.memory_limit_bytes is not None:
        retries = replace(RETRIES, slots=1, memory_limit_bytes=pool.memory_limit_bytes)
    return Yard(queues=LIMITED[:1], pools=(pool, retries))


YARDS = {
    "load": LOAD,
    "threads": of(THREADS),
    "greenlets": of(GREENLETS),
    "processes": of(PROCESSES),
    "limited threads": Yard(LIMITED, (replace(THREADS, queues=(QUEUE, BRIEF), processes=1), ASIDE, RETRIES)),
    "limited greenlets": Yard(LIMITED, (replace(GREENLETS, queues=(QUEUE, BRIEF), processes=1), ASIDE, RETRIES)),
    "two": of(replace(THREADS, processes=2)),
    "recycling": of(replace(THREADS, processes=2, recycle_after=500)),
    "ceiling threads": of(replace(THREADS, processes=2, slots=2, memory_limit_bytes=250 * MB)),
    "ceiling processes": of(replace(PROCESSES, processes=2, memory_limit_bytes=250 * MB)),
    "ceiling greenlets": of(replace(GREENLETS, processes=1, slots=4, memory_limit_bytes=250 * MB)),
    "batches": Yard(
        tuple(replace(queue, retry=RetryPolicy(max_retries=3, base_ms=10, cap_ms=50)) for queue in LIMITED),
        (replace(THREADS, queues=(QUEUE, BRIEF), processes=2), ASIDE, RETRIES),
    ),
    "greenlet": of(replace(GREENLETS, processes=1)),
    "one slot": of(replace(PROCESSES, processes=1)),
    "many greenlets": of(replace(GREENLETS, processes=1, slots=64)),
    "one byte": of(replace(PROCESSES, processes=1, memory_limit_bytes=1)),
}
