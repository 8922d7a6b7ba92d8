"""How soon does a task start at an idle worker on RabbitMQ, beside stock Dramatiq configured alike?

A server of its own for each side would decide: two RabbitMQ nodes of one machine differ by more than what is compared.
"""

import random

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import ON_RABBITMQ, PEERS, Peer

SLOTS, TURNS, AT_ONCE = 8, 20, 8


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send to two idle workers on one server by turns, a few messages each."""
    with (
        bench.stage(PEERS["dramatiq-rabbitmq"]) as alike,
        bench.stage(peer, BENCH_RABBITMQ_URL=alike.rabbitmq_url) as ours,
    ):
        stages, turns = [alike, ours], bench.count(TURNS, least=2)
        for stage in stages:
            stage.start_workers(1, slots=SLOTS)
        for _ in range(turns):
            for stage in random.sample(stages, len(stages)):
                stage.sender.paced([random.uniform(0.1, 0.3) for _ in range(AT_ONCE)])
        found = [stage.wait_for_records(turns * AT_ONCE) for stage in stages]
    return waits("rabbitmq_start_alike", found[0]) | waits("rabbitmq_start", found[1])


BENCHMARK = Benchmark(
    "rabbitmq_start", "How soon does a task start on RabbitMQ, beside stock Dramatiq?", measure, ON_RABBITMQ[:1]
)
