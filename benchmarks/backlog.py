"""Do enqueue and fetch get slower as a backlog grows?"""

import contextlib
import statistics

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import OURS, STOCK, Peer
from benchmarks.stage import Stage

# Depths that each peer can fill in half a minute.
DEPTHS = {
    "switchyard": (1_000, 10_000, 100_000, 1_000_000),
    "switchyard-stack": (1_000, 10_000, 100_000),
    "dramatiq": (1_000, 10_000, 100_000),
}
# Machine speed varies within a run: short alternating turns spread that over all depths, and the median counts.
TURNS = 51


def measure(bench: Bench, peer: Peer) -> Figures:
    """Fill a server to each depth; then alternate between depths, enqueue and fetch equal counts, without workers."""
    count = bench.count(100, least=20)
    with contextlib.ExitStack() as stages:
        filled = {depth: stages.enter_context(bench.stage(peer)) for depth in DEPTHS[peer.name]}
        for depth, stage in filled.items():
            stage.fill(depth)
        turns = [_turn(filled, count) for _ in range(TURNS)]
    return {figure: statistics.median(turn[figure] for turn in turns) for figure in turns[0]}


def _turn(filled: dict[int, Stage], count: int) -> Figures:
    figures: Figures = {}
    for depth, stage in filled.items():
        figures |= _cost(stage, f"backlog_{depth}", count)
    return figures


def _cost(stage: Stage, name: str, count: int) -> Figures:
    figures: Figures = {}
    with stage.metered(f"{name}_enqueue", count, figures):
        figures[f"{name}_enqueue_us"] = stage.sender.one_by_one(count) * 1e6 / count
    with stage.metered(f"{name}_fetch", count, figures):
        figures[f"{name}_fetch_us"] = stage.sender.turn_over(count - 1) * 1e6 / (count - 1)
    return {figure: value for figure, value in figures.items() if not figure.endswith("commands_per_task")}


BENCHMARK = Benchmark("backlog", "Do enqueue and fetch become dearer as a backlog grows?", measure, (*OURS, STOCK))
