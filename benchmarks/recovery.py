"""A worker is killed with kill -9 while 8 tasks run and 16 wait: when do they run again?"""

import signal
import time
from collections.abc import Iterable

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import EVERYONE, Peer
from benchmarks.records import Record
from benchmarks.stage import Stage

SLOTS, TASKS = 8, 24
WORK_S = 3.0


def measure(bench: Bench, peer: Peer) -> Figures:
    """Kill the only worker, start another at once, and wait until everything ran (again), or give up."""
    patience_s = bench.count(75, least=40)
    with bench.stage(peer) as stage:
        stage.start_workers(1, slots=SLOTS)
        stage.sender.one_by_one(TASKS, work_s=WORK_S)
        held = {record.number for record in stage.wait_for_records(SLOTS)}
        stage.signal_workers(signal.SIGKILL)
        killed_s = time.monotonic()
        second = stage.start_worker(SLOTS)
        after = _watch(stage, second, until_s=killed_s + patience_s)
    again = _first_starts((record for record in after if record.number in held), killed_s)
    others = _first_starts((record for record in after if record.number not in held), killed_s)
    return {
        "recovery_running_tasks": len(held),
        "recovery_run_again": len(again),
        "recovery_lost_or_late": TASKS - len(again) - len(others),
        **({"recovery_first_s": min(again.values())} if again else {}),
        **({"recovery_last_s": max(again.values())} if len(again) == len(held) else {}),
    }


def _watch(stage: Stage, worker: int, *, until_s: float) -> list[Record]:
    """Return the tasks the second worker started, once it has started all or time is up."""
    started: list[Record] = []
    while time.monotonic() < until_s and len({record.number for record in started}) < TASKS:
        time.sleep(0.05)
        started = [record for record in stage.records() if record.worker == worker]
    return started


def _first_starts(records: Iterable[Record], since_s: float) -> dict[int, float]:
    starts: dict[int, float] = {}
    for record in records:
        starts.setdefault(record.number, record.started_s - since_s)
    return starts


BENCHMARK = Benchmark("recovery", "When do a killed worker's tasks run again?", measure, EVERYONE, most_rounds=2)
