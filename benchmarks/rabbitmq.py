"""How fast is RabbitMQ worked off, and how soon does a task start there, beside stock Dramatiq on the same server?"""

import random

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate, waits
from benchmarks.peers import ON_RABBITMQ, Peer

SLOTS, BACKLOG, RATE_PER_S = 8, 6_000, 200


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send to an idle worker, then at an even pace, then a backlog that a paused worker finds."""
    idle, steady, backlog = (
        bench.count(50, least=5),
        RATE_PER_S * bench.count(5, least=1),
        bench.count(BACKLOG, least=200),
    )
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=SLOTS)
        stage.sender.paced([random.uniform(0.1, 0.3) for _ in range(idle)])
        stage.wait_for_records(idle)
        stage.sender.paced([1 / RATE_PER_S] * steady)
        stage.wait_for_records(idle + steady)
        stage.pause_workers()
        sent_s = stage.sender.one_by_one(backlog)
        stage.resume_workers()
        records = stage.wait_for_records(idle + steady + backlog)
    return {
        **waits("rabbitmq_idle", records[:idle]),
        **waits("rabbitmq_steady", records[idle : idle + steady]),
        "rabbitmq_enqueue_per_s": backlog / sent_s,
        "rabbitmq_drain_per_s": drain_rate(records[idle + steady :]),
    }


BENCHMARK = Benchmark("rabbitmq", "How fast is RabbitMQ worked off, how soon does a task start?", measure, ON_RABBITMQ)
