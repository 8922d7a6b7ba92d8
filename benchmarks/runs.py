"""Runs a benchmark: every peer in turn, again and again, so that the weather of a shared machine falls on all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.bench import Bench, Benchmark
from benchmarks.peers import Peer
from benchmarks.stage import WorkerFailed


@dataclass
class Runs:
    """Values of every figure: ``values[figure][peer][round]``; ``None`` where a run failed.

    Args:
        failures: What went wrong, for the report.
    """

    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, peer: str, round_number: int, figures: dict[str, float]) -> None:
        """Note the figures of one run."""
        for figure, value in figures.items():
            runs = self.values.setdefault(figure, {}).setdefault(peer, [])
            runs += [None] * (round_number - len(runs))
            runs.append(value)


def run(benchmark: Benchmark, bench: Bench, peers: Sequence[Peer], rounds: int, into: Runs) -> None:
    """Measure every peer once a round."""
    for number in range(rounds):
        for peer in peers:
            print(f"\r\x1b[K{benchmark.name}: {peer.title}, run {number + 1} of {rounds}", end="", file=sys.stderr)
            try:
                into.add(peer.name, number, benchmark.measure(bench, peer))
            except (WorkerFailed, TimeoutError) as error:
                into.failures.append(f"{benchmark.name}, {peer.name}, run {number + 1}: {error}")
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
