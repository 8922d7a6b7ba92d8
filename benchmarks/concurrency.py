"""At how many slots does a pool stop getting faster? Raises them until the 95th percentile no longer improves."""

import math

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import quantile
from benchmarks.peers import OURS, Peer

LEVELS = (1, 2, 4, 8, 16, 32, 64)
RATE_PER_S, WORK_S = 200, 0.05
# A level is an improvement when it lowers the 95th percentile by a tenth and by 1 ms: less is noise.
WORTH_SHARE, WORTH_MS = 0.1, 1.0


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send the same load to a pool with more and more slots; report the last level that improved the wait."""
    figures: Figures = {}
    best, best_ms = 0, math.inf
    for slots in LEVELS:
        p95_ms = _p95_ms(bench, peer, slots)
        figures[f"concurrency_{slots}_p95_ms"] = p95_ms
        if best_ms - p95_ms < max(WORTH_SHARE * best_ms, WORTH_MS):
            break
        best, best_ms = slots, p95_ms
    return {"concurrency_best_slots": best, "concurrency_best_p95_ms": best_ms, **figures}


def _p95_ms(bench: Bench, peer: Peer, slots: int) -> float:
    count = RATE_PER_S * bench.count(5, least=2)
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=slots)
        stage.sender.paced([1 / RATE_PER_S] * count, work_s=WORK_S)
        return quantile([record.waited_ms for record in stage.wait_for_records(count)], 0.95)


BENCHMARK = Benchmark(
    "concurrency", "With how many slots does a pool stop becoming quicker?", measure, OURS, most_rounds=3
)
