"""How long does urgent work wait beside a pool with nothing to do, and with each slot held? And in a small yard?"""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import waits
from benchmarks.peers import SMALL, SMALL_SLOTS, STACK, Peer
from benchmarks.stage import Stage

PER_S, SECONDS, TURNS = 20, 20.0, 2
SLOW_SLOTS, SLOW_WORK_S = 4, 0.05
FIRST_SLOW = 1_000_000


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send urgent work beside an idle pool and beside one with a backlog, by turns."""
    count = bench.count(int(PER_S * SECONDS / TURNS))
    slow_slots = SMALL_SLOTS - 1 if peer is SMALL else SLOW_SLOTS
    backlog = int(slow_slots / SLOW_WORK_S * (count / PER_S + 5))
    numbers: dict[str, set[int]] = {"idle": set(), "saturated": set()}
    with bench.stage(peer, BENCH_LANES="urgent slow") as stage:
        _start(stage)
        for turn, where in enumerate([*numbers] * TURNS):
            slow = set[int]()
            if where == "saturated":
                slow = set(range(FIRST_SLOW + turn * backlog, FIRST_SLOW + (turn + 1) * backlog))
                stage.sender.one_by_one(backlog, first=min(slow), work_s=SLOW_WORK_S, queue="slow")
            first = (turn + 1) * 10_000
            stage.sender.paced([1 / PER_S] * count, first=first, queue="urgent")
            numbers[where] |= set(range(first, first + count))
            wanted = numbers[where] | slow
            stage.wait_until(lambda found, w=wanted: w <= {one.number for one in found}, "every task started")  # type: ignore[misc]
        records = stage.records()
    return {
        name: figure
        for where, those in numbers.items()
        for name, figure in waits(f"urgent_{where}", [one for one in records if one.number in those]).items()
    }


def _start(stage: Stage) -> None:
    """Start a pool for each queue, or the one of a small yard."""
    if stage.peer is SMALL:
        stage.migrate()
        stage.start_workers(1, slots=SMALL_SLOTS, queue="urgent")
        return
    stage.start_workers(1, slots=4, queue="urgent")
    stage.start_workers(1, slots=SLOW_SLOTS, queue="slow")


BENCHMARK = Benchmark("urgent", "How long does urgent work wait beside a saturated pool?", measure, (STACK, SMALL))
