"""How long does urgent work wait while 50,000 retries fall due within 10 s and a slow pool is saturated?"""

import time

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import OURS, STOCK, Peer
from benchmarks.records import Record

STORM_S = 10.0
AHEAD_S = 20.0  # time to schedule them all before the first is due
URGENT_PER_S = 20
SLOW_WORK_S = 0.5
FIRST_URGENT, FIRST_RETRY = 1_000_000, 2_000_000


def measure(bench: Bench, peer: Peer) -> Figures:
    """Give each queue a pool of its own, raise the storm, and send urgent work into it."""
    retries = bench.count(50_000)
    lanes = "urgent slow webhook webhook-retry"
    with bench.stage(peer, BENCH_LANES=lanes) as stage:
        stage.start_workers(1, slots=4, queue="urgent")
        stage.start_workers(1, slots=8, queue="webhook-retry")
        stage.start_workers(1, slots=2, queue="slow")
        stage.sender.one_by_one(200, work_s=SLOW_WORK_S, queue="slow")
        scheduling_s = stage.sender.later(
            retries, first=FIRST_RETRY, after_s=AHEAD_S, spread_s=STORM_S, queue="webhook-retry"
        )
        time.sleep(max(AHEAD_S - scheduling_s, 0))
        count = int(URGENT_PER_S * STORM_S)
        stage.sender.paced([1 / URGENT_PER_S] * count, first=FIRST_URGENT, queue="urgent")
        records = stage.wait_until(lambda found: len(_urgent(found)) >= count, "every urgent task started")
    done = sum(record.number >= FIRST_RETRY for record in records)
    figures = waits("storm_urgent", _urgent(records))
    return {**figures, "storm_retries_done_share": done / retries}


def _urgent(records: list[Record]) -> list[Record]:
    return [record for record in records if FIRST_URGENT <= record.number < FIRST_RETRY]


BENCHMARK = Benchmark("storm", "How long does urgent work wait during a storm of retries?", measure, (*OURS, STOCK))
