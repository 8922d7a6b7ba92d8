"""How long does a group of 10,000 sleeping tasks take, with all results waited for?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import OURS, PEERS, STOCK, Peer

SLOTS, WORK_S = 8, 0.001


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send the group from one process, run it in one worker of 8 slots, and wait for every result."""
    count = bench.count(10_000)
    with bench.stage(peer, BENCH_RESULTS="1") as stage:
        stage.start_workers(1, slots=SLOTS)
        return {"group_per_s": count / stage.sender.group(count, work_s=WORK_S)}


CELERY = (PEERS["celery-prefork"], PEERS["celery-threads"])
BENCHMARK = Benchmark("group", "10,000 sleeping tasks in a group, waited for", measure, (*OURS, STOCK, *CELERY))
