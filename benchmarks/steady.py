"""How long does a task wait at a steady 200 a second, and what does it cost the server?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import PEERS, Peer

RATE_PER_S = 200


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send at an even pace; the first second, in which caches and backoffs settle, is not counted."""
    count = RATE_PER_S * bench.count(10, least=2)
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=8)
        stage.sender.paced([1 / RATE_PER_S] * RATE_PER_S)
        stage.wait_for_records(RATE_PER_S)
        before = stage.server.usage()
        stage.sender.paced([1 / RATE_PER_S] * count)
        records = stage.wait_for_records(RATE_PER_S + count)[RATE_PER_S:]
        used = stage.server.usage().since(before)
    return {
        **waits("steady", records),
        "steady_server_us_per_task": used.cpu_s * 1e6 / count,
        "steady_commands_per_task": used.commands / count,
    }


BENCHMARK = Benchmark("steady", "How long does a task wait at 200 a second?", measure, tuple(PEERS.values()))
