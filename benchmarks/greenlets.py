"""How close do 400 greenlets that wait for 50 ms come to their theoretical rate?"""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate
from benchmarks.peers import OURS, STOCK, Peer

GREENLETS, WORK_S = 400, 0.05
CEILING_PER_S = GREENLETS / WORK_S


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain a backlog of tasks that sleep."""
    count = bench.count(32_000, least=8_000)
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=GREENLETS, BENCH_GEVENT="1")
        stage.pause_workers()
        stage.fill(count, work_s=WORK_S)
        stage.resume_workers()
        records = stage.wait_for_records(count)
    return {"greenlets_per_s": drain_rate(records), "greenlets_ceiling_per_s": CEILING_PER_S}


BENCHMARK = Benchmark("greenlets", "How near do 400 greenlets come to their ceiling?", measure, (*OURS, STOCK))
