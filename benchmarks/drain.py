"""How fast is a backlog of no-ops drained, and what does that cost the server?"""

import contextlib

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate
from benchmarks.peers import EVERYONE, HISTORY, TRACED, Peer

SLOTS = 8


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain once with one worker and once with two."""
    return {**drain(bench, peer, workers=1), **drain(bench, peer, workers=2)}


def drain(bench: Bench, peer: Peer, *, workers: int) -> Figures:
    """Stop the workers, let a backlog grow, resume them."""
    name, backlog = f"drain_{workers}x{SLOTS}", bench.count(peer.backlog, least=200)
    figures: Figures = {}
    with contextlib.ExitStack() as opened:
        variables = {}
        if peer is TRACED:
            from tests.otlp import receiving  # needs OpenTelemetry

            variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = opened.enter_context(receiving()).url
        stage = opened.enter_context(bench.stage(peer, **variables))
        stage.start_workers(workers, slots=SLOTS)
        stage.pause_workers()
        stage.fill(backlog)
        with stage.metered(name, backlog, figures):
            stage.resume_workers()
            records = stage.wait_for_records(backlog)
    return {f"{name}_per_s": drain_rate(records), **figures}


BENCHMARK = Benchmark("drain", "How fast is a backlog of no-ops worked off?", measure, (*EVERYONE, HISTORY, TRACED))
