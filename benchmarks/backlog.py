"""Do enqueue and fetch become dearer as a backlog grows?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import OURS, STOCK, Peer
from benchmarks.stage import Stage

# As deep as each can be filled in half a minute.
DEPTHS = {
    "switchyard": (1_000, 10_000, 100_000, 1_000_000),
    "switchyard-stack": (1_000, 10_000, 100_000),
    "dramatiq": (1_000, 10_000, 100_000),
}


def measure(bench: Bench, peer: Peer) -> Figures:
    """Fill to each depth, then enqueue some and fetch as many, from one process, without workers."""
    count = bench.count(5_000, least=500)
    figures: Figures = {}
    with bench.stage(peer) as stage:
        filled = 0
        for depth in DEPTHS[peer.name]:
            stage.fill(depth - filled)
            filled = depth
            figures |= _cost(stage, f"backlog_{depth}", count)
    return figures


def _cost(stage: Stage, name: str, count: int) -> Figures:
    figures: Figures = {}
    with stage.metered(f"{name}_enqueue", count, figures):
        figures[f"{name}_enqueue_us"] = stage.sender.one_by_one(count) * 1e6 / count
    with stage.metered(f"{name}_fetch", count, figures):
        figures[f"{name}_fetch_us"] = stage.sender.turn_over(count) * 1e6 / count
    return {figure: value for figure, value in figures.items() if not figure.endswith("commands_per_task")}


BENCHMARK = Benchmark("backlog", "Do enqueue and fetch become dearer as a backlog grows?", measure, (*OURS, STOCK))
