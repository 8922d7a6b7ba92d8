"""Benchmark of the cost of more queues and more workers, busy and idle."""

import time

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import quantile
from benchmarks.peers import OURS, STOCK, Peer
from benchmarks.stage import Stage

QUEUES = (1, 10, 50)
WORKERS = (1, 4, 12)
RATE_PER_S = 50
CROWD_WORKERS, CROWD_AT_ONCE = 200, 25


def measure(bench: Bench, peer: Peer) -> Figures:
    """Raise the count of queues of one worker, then that of workers on one queue; one queue gets slow work."""
    figures: Figures = {}
    for count in QUEUES:
        lanes = " ".join(f"bench{number}" for number in range(count))
        with bench.stage(peer, BENCH_LANES=lanes) as stage:
            stage.start_workers(1, slots=8)
            figures |= _cost(bench, stage, f"growth_{count}_queues")
    for count in WORKERS:
        with bench.stage(peer) as stage:
            stage.start_workers(count, slots=2)
            figures |= _cost(bench, stage, f"growth_{count}_workers")
    return figures


def crowd(bench: Bench, peer: Peer) -> Figures:
    """Put 200 worker processes of one slot on one queue: 8 GB of memory, and a minute of both cores to start."""
    with bench.stage(peer) as stage:
        count = bench.count(CROWD_WORKERS)
        for start in range(0, count, CROWD_AT_ONCE):
            stage.start_workers(min(CROWD_AT_ONCE, count - start), slots=1, timeout_s=300.0)
        return _cost(bench, stage, "growth_200_workers")


def _cost(bench: Bench, stage: Stage, name: str) -> Figures:
    quiet_s = bench.count(5, least=2)
    before = stage.server.usage()
    time.sleep(quiet_s)
    idle = stage.server.usage().since(before)
    count = RATE_PER_S * bench.count(5, least=2)
    figures = {f"{name}_idle_commands_per_s": idle.commands / quiet_s}
    with stage.metered(name, count, figures):
        stage.sender.paced([1 / RATE_PER_S] * count)
        records = stage.wait_for_records(count)
    figures[f"{name}_p50_ms"] = quantile([record.waited_ms for record in records], 0.5)
    return figures


BENCHMARK = Benchmark("growth", "What do more queues and more workers cost?", measure, (*OURS, STOCK), most_rounds=3)
CROWD = Benchmark("crowd", "What do 200 workers of one queue cost?", crowd, OURS[:1], most_rounds=1)
