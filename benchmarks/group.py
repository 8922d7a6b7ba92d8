"""How long does a group of 10,000 sleeping tasks take, with all results waited for, and what do they leave behind?"""

import time

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import OURS, PEERS, STOCK, Peer
from benchmarks.stage import Stage

SLOTS, WORK_S = 8, 0.001
# Until the last acknowledgements and records are written.
SETTLED_S = 2.0


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send the group from one process, run it in one worker of 8 slots, wait for every result; then without results."""
    count = bench.count(10_000)
    with bench.stage(peer, BENCH_RESULTS="1") as stage:
        stage.start_workers(1, slots=SLOTS)
        before = stage.server.usage()
        figures = {"group_per_s": count / stage.sender.group(count, work_s=WORK_S)}
        figures["group_with_results_bytes"] = _left(stage, before.used_bytes) / count
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=SLOTS)
        before = stage.server.usage()
        stage.fill(count, work_s=WORK_S)
        stage.wait_for_records(count)
        figures["group_without_results_bytes"] = _left(stage, before.used_bytes) / count
    return figures


def _left(stage: Stage, before: int) -> int:
    """Return by how much the server's memory has grown once everything has ended."""
    time.sleep(SETTLED_S)
    return int(stage.server.usage().used_bytes) - before


CELERY = (PEERS["celery-prefork"], PEERS["celery-threads"])
BENCHMARK = Benchmark("group", "10,000 sleeping tasks in a group, waited for", measure, (*OURS, STOCK, *CELERY))
