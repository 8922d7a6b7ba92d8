"""A flash sale for real, at the highest rate that this machine's cores hold, beside the model of it.

    python -m benchmarks.flash_sale_run [--peak 1.5] [--rounds 3]

Before each sale the processor time of a message is measured part by part: its sender and the server while nothing
runs, then the server and the workers while nothing is sent. The sale's peak is more than the cores hold. The model
knows those costs, what was sent in each tenth of a second, and the processor time that the sale got in it (others use
this machine, too); from them it says how many messages start a second, how many wait at most, and when the last one
has started.
"""

import argparse
import statistics
import sys
import time
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import psutil

from benchmarks.bench import Bench
from benchmarks.environments import Environments
from benchmarks.figures import quantile
from benchmarks.peers import STACK
from benchmarks.records import LAYOUT
from benchmarks.stage import Stage

WORKERS, SLOTS, TICK_S = 2, 8, 0.1
CALIBRATED = 40_000
RISE_S, HOLD_S, FALL_S = 4.0, 8.0, 4.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time in seconds: of a message that is sent, and of one that runs."""

    sent_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class Sale:
    """Course of a sale: measured, or by the model.

    Args:
        per_s: Messages that start a second while some wait.
        deepest: Messages that wait at most.
        over_s: Seconds from the first send to the last start.
        p95_s: 95th percentile of the waits.
    """

    per_s: float
    deepest: float
    over_s: float
    p95_s: float


def processor_s(stage: Stage) -> tuple[float, float, float]:
    """Return the processor time so far of the sender, the server and the workers."""
    workers = [psutil.Process(worker.pid) for worker in stage.workers]
    every = [each for worker in workers for each in (worker, *worker.children(recursive=True))]
    return _of([psutil.Process(stage.sender.pid)]), stage.server.cpu_s(), _of(every)


def _of(processes: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def measured_cost(stage: Stage) -> Cost:
    """Measure both halves of a message, one after the other."""
    first = len(stage.records())
    stage.pause_workers()
    before = sum(processor_s(stage)[:2])
    stage.sender.bulk(CALIBRATED, first=first)
    between = processor_s(stage)
    stage.resume_workers()
    stage.wait_for_records(first + CALIBRATED)
    run_s = sum(processor_s(stage)[1:]) - sum(between[1:])
    return Cost((sum(between[:2]) - before) / CALIBRATED, run_s / CALIBRATED)


def shape(peak: float) -> list[int]:
    """Return the messages of each tick."""
    ticks = int((RISE_S + HOLD_S + FALL_S) / TICK_S)
    heights = (min(n * TICK_S / RISE_S, 1.0, (ticks - n) * TICK_S / FALL_S) for n in range(ticks))
    return [int(peak * TICK_S * height) for height in heights]


def really(stage: Stage, counts: Sequence[int]) -> tuple[Sale, list[int], list[float]]:
    """Run a sale; return it, what was sent in each tick, and the processor time that it got in it."""
    first = len(stage.records())
    began_s, sent, number = time.monotonic(), 0, 0
    got = [(0.0, sum(processor_s(stage)))]
    while number < len(counts) or stage.records_path.stat().st_size // LAYOUT.size < first + sent:
        time.sleep(max(began_s + number * TICK_S - time.monotonic(), 0.0))
        if number < len(counts) and counts[number]:
            stage.sender.bulk(counts[number], first=first + sent)
            sent += counts[number]
        got.append((time.monotonic() - began_s, sum(processor_s(stage))))
        number += 1
    records = stage.records()
    own = [record for record in records if record.number >= first]
    ticks = Counter(int((record.sent_s - began_s) / TICK_S) for record in own)
    sends = [ticks[n] for n in range(max(ticks) + 1)]
    changes = sorted([(record.sent_s, 1) for record in own] + [(record.started_s, -1) for record in own])
    deepest = waiting = 0
    for _, change in changes:
        waiting += change
        deepest = max(deepest, waiting)
    over_s = own[-1].started_s - min(record.sent_s for record in own)
    late = [record.started_s for record in own if record.waited_ms > 1_000]
    per_s = sum(late[0] <= record.started_s <= late[-1] for record in own) / (late[-1] - late[0]) if late else 0.0
    until = [_at(got, n * TICK_S) for n in range(int(got[-1][0] / TICK_S) + 2)]
    budget = [after - before for before, after in pairwise(until)]
    return Sale(per_s, deepest, over_s, quantile([each.waited_ms / 1e3 for each in own], 0.95)), sends, budget


def _at(got: Sequence[tuple[float, float]], at_s: float) -> float:
    """Return the processor time at a moment, between the two nearest readings."""
    number = min(max(bisect(got, (at_s, 0.0)), 1), len(got) - 1)
    (before_s, before), (after_s, after) = got[number - 1], got[number]
    return before + (after - before) * (at_s - before_s) / max(after_s - before_s, 1e-9)


def modelled(sends: Sequence[int], cost: Cost, budget: Sequence[float]) -> Sale:
    """Return the sale that so much processor time carries: sending comes first, and what is left runs what waits."""
    later_s = statistics.mean(budget[len(sends) :] or budget)  # a tick's, where the real sale was over by then
    spare_s = 0.0
    queue: list[tuple[float, float]] = []
    waits: list[tuple[float, float]] = []
    deepest = waiting = at_s = busy_s = busy = 0.0
    number = head = 0
    while number < len(sends) or waiting > 0.5:
        count = sends[number] if number < len(sends) else 0
        # A call that sends for longer than a tick has used the ticks before: what is lacking is carried on.
        spare_s = min(spare_s, 0.0) + (budget[number] if number < len(budget) else later_s) - count * cost.sent_s
        room = max(spare_s, 0.0) / cost.run_s
        queue.append((at_s, count))
        waiting += count
        started = min(waiting, room)
        waiting -= started
        if waiting > 0:
            busy, busy_s = busy + started, busy_s + TICK_S
        while started > 1e-9:
            sent_at_s, left = queue[head]
            taken = min(left, started)
            waits.append((at_s - sent_at_s, taken))
            started -= taken
            queue[head] = (sent_at_s, left - taken)
            head += taken >= left
        deepest, at_s, number = max(deepest, waiting), at_s + TICK_S, number + 1
    left = 0.95 * sum(count for _, count in waits)
    sums = accumulate(count for _, count in sorted(waits))
    wait_s = next(wait_s for (wait_s, _), total in zip(sorted(waits), sums, strict=True) if total >= left)
    return Sale(busy / busy_s if busy_s else 0.0, deepest, at_s, wait_s)


def main(given: Sequence[str]) -> int:
    """Print costs, and each sale beside its model; return 1 where a rate is off by more than a fifth."""
    parser = argparse.ArgumentParser("benchmarks.flash_sale_run", description=__doc__)
    parser.add_argument("--peak", type=float, default=1.5, help="times what all cores would hold, default 1.5")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(given)
    off = 0
    with Bench(Environments(Path("var/bench"))).stage(STACK) as stage:
        stage.start_workers(WORKERS, slots=SLOTS)
        for _ in range(asked.rounds):
            cost = measured_cost(stage)
            holds = psutil.cpu_count() / (cost.sent_s + cost.run_s)
            real, sends, budget = really(stage, shape(asked.peak * holds))
            model = modelled(sends, cost, budget)
            print(
                f"a message costs {cost.sent_s * 1e6:.0f} us sent, {cost.run_s * 1e6:.0f} us run, {holds:,.0f}/s at "
                f"most; {sum(sends):,} messages, {statistics.mean(budget) / TICK_S:.2f} cores"
            )
            for name in ("per_s", "deepest", "over_s", "p95_s"):
                was, said = getattr(real, name), getattr(model, name)
                print(f"  {name:8} {was:10,.1f}  model {said:10,.1f}  {said / was - 1 if was else 0:+.0%}", flush=True)
            off += abs(model.per_s / real.per_s - 1) > 0.2 if real.per_s else 1
    return int(off > asked.rounds / 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
