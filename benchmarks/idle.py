"""How long does a task wait for an idle worker?"""

import random

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import EVERYONE, OURS, RAW_MOVE, STOCK, Peer


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send a task 300 to 500 ms after the one before: by then a polling worker has backed off."""
    count = 100 if peer in (*OURS, STOCK, RAW_MOVE) else 40  # a p99 needs many; of the others the median is used
    gaps_s = [random.uniform(0.3, 0.5) for _ in range(bench.count(count, least=5))]
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=8)
        stage.sender.paced(gaps_s)
        return waits("idle", stage.wait_for_records(len(gaps_s)))


BENCHMARK = Benchmark("idle", "How long does a task wait for an idle worker?", measure, (*EVERYONE, RAW_MOVE))
