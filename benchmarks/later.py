"""100,000 tasks are due in an hour: what do they cost the worker's memory, and do other tasks still start on time?"""

import time

import psutil

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import OURS, STOCK, Peer
from benchmarks.stage import Stage

HOUR_S = 3_600.0
PROMPT, PATIENCE_S = 20, 15.0


def measure(bench: Bench, peer: Peer) -> Figures:
    """Schedule them beside an idle worker; then some that fall due in two seconds, one after another."""
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=8)
        before = _memory_bytes(stage)
        stage.sender.later(bench.count(100_000), after_s=HOUR_S)
        for _ in range(PROMPT):
            stage.sender.later(1, after_s=2.0)
        deadline = time.monotonic() + PATIENCE_S  # a worker whose prefetch is full of them never fetches the others
        records = stage.wait_until(
            lambda found: len(found) == PROMPT or time.monotonic() > deadline, "the tasks that are due"
        )
        grown = _memory_bytes(stage) - before
    late_ms = [record.waited_ms for record in records]
    figures = {"later_worker_growth_bytes": float(grown), "later_due_started_share": len(late_ms) / PROMPT}
    if late_ms:
        figures |= {"later_first_late_ms": late_ms[0], "later_late_max_ms": max(late_ms)}
    return figures


def _memory_bytes(stage: Stage) -> int:
    """Return the resident memory of the worker, which runs as one process."""
    return int(psutil.Process(stage.workers[0].pid).memory_info().rss)


BENCHMARK = Benchmark("later", "What do 100,000 tasks cost that are due in an hour?", measure, (*OURS, STOCK))
