"""How fast is a backlog of no-ops worked off, and what does that cost the server?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate
from benchmarks.peers import PEERS, Peer

SLOTS = 8


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain once with one worker and once with two."""
    return {**drain(bench, peer, workers=1), **drain(bench, peer, workers=2)}


def drain(bench: Bench, peer: Peer, *, workers: int) -> Figures:
    """Stop the workers, let a backlog grow, let them go."""
    backlog = bench.count(peer.backlog, least=200)
    with bench.stage(peer) as stage:
        stage.start_workers(workers, slots=SLOTS)
        with stage.paused_workers():
            stage.fill(backlog)
            before = stage.server.usage()
        records = stage.wait_for_records(backlog)
        used = stage.server.usage().since(before)
    name = f"drain_{workers}x{SLOTS}"
    return {
        f"{name}_per_s": drain_rate(records),
        f"{name}_server_us_per_task": used.cpu_s * 1e6 / backlog,
        f"{name}_commands_per_task": used.commands / backlog,
    }


BENCHMARK = Benchmark("drain", "How fast is a backlog of no-ops worked off?", measure, tuple(PEERS.values()))
