"""Benchmark of a backlog whose drain lasts longer than a burst, with and without the history.

A drain of a few seconds says little of the history: its writer rests most of the first 5 s of a burst.
"""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.drain import SLOTS
from benchmarks.figures import drain_rate
from benchmarks.peers import HISTORY, OURS, Peer

BACKLOG = 150_000


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain 150,000 no-ops once with one worker and once with two."""
    return {**_drain(bench, peer, workers=1), **_drain(bench, peer, workers=2)}


def _drain(bench: Bench, peer: Peer, *, workers: int) -> Figures:
    backlog = bench.count(BACKLOG, least=200)
    with bench.stage(peer) as stage:
        stage.start_workers(workers, slots=SLOTS)
        stage.pause_workers()
        stage.fill(backlog)
        stage.resume_workers()
        records = stage.wait_for_records(backlog)
    return {f"long_drain_{workers}x{SLOTS}_per_s": drain_rate(records)}


BENCHMARK = Benchmark(
    "long_drain", "How fast is a long backlog worked off while the history is written?", measure, (*OURS, HISTORY)
)
