"""How long does a task wait at a steady rate of 200 per second, and what does it cost the server?"""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import EVERYONE, RAW_MOVE, Peer

RATE_PER_S = 200


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send at an even pace; the first second, in which caches and backoffs settle, is not counted."""
    count = RATE_PER_S * bench.count(10, least=2)
    figures: Figures = {}
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=8)
        stage.sender.paced([1 / RATE_PER_S] * RATE_PER_S)
        stage.wait_for_records(RATE_PER_S)
        with stage.metered("steady", count, figures):
            stage.sender.paced([1 / RATE_PER_S] * count)
            records = stage.wait_for_records(RATE_PER_S + count)
    return {**waits("steady", records[RATE_PER_S:]), **figures}


BENCHMARK = Benchmark("steady", "How long does a task wait at 200 a second?", measure, (*EVERYONE, RAW_MOVE))
