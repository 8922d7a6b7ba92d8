"""Interface of a benchmark: what it receives and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.environments import Environments
from benchmarks.peers import Peer
from benchmarks.stage import Stage

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """Context of the benchmarks.

    Args:
        size: Share of the full size, 0 … 1: ``--quick`` and tests measure less and say less.
    """

    environments: Environments
    size: float = 1.0

    def stage(self, peer: Peer, **variables: str) -> Stage:
        """Return a fresh server and sender for one run of one peer, with these variables in its processes."""
        return Stage(peer, self.environments, **variables)

    def count(self, full: int, least: int = 20) -> int:
        """Return a count scaled to the size of the run; ``full`` at full size."""
        return max(int(full * self.size), min(least, full))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: a question and the function that measures it.

    Args:
        question: One sentence for ``--list``.
        measure: Does one run of one peer; its figures' names end in their units.
        peers: Whom it is asked of.
        most_rounds: Runs of each peer at most, where one takes minutes.
    """

    name: str
    question: str
    measure: Callable[[Bench, Peer], Figures]
    peers: tuple[Peer, ...]
    most_rounds: int = 100
