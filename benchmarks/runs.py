"""Rounds of a benchmark: every peer in turn, repeatedly, so that noise of a shared machine affects all alike."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import spread
from benchmarks.judging import Judgement
from benchmarks.peers import Peer
from benchmarks.sending import PeerFailed


@dataclass
class Runs:
    """Values of every figure: ``values[figure][peer][round]``; ``None`` where a run failed.

    Args:
        failures: What went wrong, for the report.
        own_failed: A run of Switchyard itself was among it.
    """

    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    own_failed: bool = False

    def as_dict(self, judgements: Sequence[Judgement]) -> dict[str, object]:
        """Return everything for JSON: each run, its spread, the targets."""
        spreads = {
            figure: {peer: spread(present).as_dict() for peer, of in peers.items() if (present := _present(of))}
            for figure, peers in self.values.items()
        }
        targets = [asdict(judgement) for judgement in judgements]
        return {"spreads": spreads, "targets": targets, "runs": self.values, "failures": self.failures}

    def add(self, peer: str, round_number: int, figures: dict[str, float]) -> None:
        """Add the figures of one run."""
        for figure, value in figures.items():
            runs = self.values.setdefault(figure, {}).setdefault(peer, [])
            runs += [None] * (round_number - len(runs))
            runs.append(value)


def run(benchmark: Benchmark, bench: Bench, peers: Sequence[Peer], rounds: int, into: Runs) -> None:
    """Measure every peer once a round."""
    rounds = min(rounds, benchmark.most_rounds)
    for number in range(rounds):
        for peer in peers:
            _tell(f"{benchmark.name}: {peer.title}, run {number + 1} of {rounds}")
            try:
                into.add(peer.name, number, benchmark.measure(bench, peer))
            except (PeerFailed, TimeoutError) as error:
                into.failures.append(f"{benchmark.name}, {peer.name}, run {number + 1} failed: {error}")
                into.own_failed |= peer.ours
    _tell("")


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
