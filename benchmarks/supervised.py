"""Benchmark of the supervisor's cost: the time to drain a backlog under ``runpool`` and with a bare worker."""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate
from benchmarks.peers import STACK, SUPERVISED, Peer

SLOTS = 8


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain a backlog of no-ops twice over, with one child or one worker."""
    backlog = bench.count(2 * peer.backlog, least=200)
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=SLOTS)
        stage.pause_workers()
        stage.fill(backlog)
        stage.resume_workers()
        return {"supervised_drain_per_s": drain_rate(stage.wait_for_records(backlog))}


BENCHMARK = Benchmark("supervised", "What does a pool's supervisor cost?", measure, (STACK, SUPERVISED))
