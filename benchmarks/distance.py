"""Benchmark of the throughput that each further millisecond of round trip to the server costs."""

import random

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate, quantile
from benchmarks.peers import OURS, STOCK, Peer

ONE_WAY_MS = 0.5


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain, and wait while idle, with and without added latency, one right after the other."""
    near, near_ms = _one(bench, peer, away_ms=0.0)
    far, far_ms = _one(bench, peer, away_ms=ONE_WAY_MS)
    return {
        "distance_near_drain_per_s": near,
        "distance_far_drain_per_s": far,
        "distance_near_p50_ms": near_ms,
        "distance_far_p50_ms": far_ms,
        "distance_added_p50_ms": far_ms - near_ms,
    }


def _one(bench: Bench, peer: Peer, *, away_ms: float) -> tuple[float, float]:
    backlog, paced = bench.count(peer.backlog), bench.count(40)
    with bench.stage(peer).away(away_ms) as stage:
        stage.start_workers(1, slots=8)
        stage.sender.paced([random.uniform(0.2, 0.3) for _ in range(paced)])
        idle = [record.waited_ms for record in stage.wait_for_records(paced)]
        stage.pause_workers()
        stage.fill(backlog)
        stage.resume_workers()
        records = stage.wait_for_records(paced + backlog)[paced:]
    return drain_rate(records), quantile(idle, 0.5)


BENCHMARK = Benchmark("distance", "What does 1 ms more to the server cost?", measure, (*OURS, STOCK))
