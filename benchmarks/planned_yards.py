"""Do plans hold? Yards drawn at random: each is planned, then run for real, and both are compared.

    python -m benchmarks.planned_yards [--yards 20] [--seed 1] [--log var/planned_yards.jsonl]

A yard is one pool of threads whose tasks sleep. It runs for ten minutes with the slots that the plan names, and at
the same time with two less: where those keep the promise, the plan names more than one too many. The log has a line
for each yard; the same command goes on after the last one. Exits 1 when fewer than 17 of 20 plans hold.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import django

from benchmarks.bench import Bench
from benchmarks.environments import Environments
from benchmarks.figures import quantile
from benchmarks.peers import SUPERVISED

WARM_S, MINUTES = 20.0, 10
HOLD = 17 / 20
# Samples of run times from which the plan's counts are made: as many as a yard counts in some minutes.
COUNTED_RUNS = 2_000


@dataclass(frozen=True, slots=True)
class DrawnYard:
    """A yard drawn at random.

    Args:
        short_s: Median run time.
        long_s: The 95th percentile of run times; where ``mixed``, the run time of one task in ten.
        mixed: Run times are of two kinds, and the plan knows only their counts, as a yard records them.
    """

    number: int
    rate: float
    short_s: float
    long_s: float
    mixed: bool
    promise_s: float


def draw(seed: int, number: int) -> DrawnYard:
    """Return a yard; always the same for a seed and a number."""
    chance = random.Random(f"{seed}/{number}")
    short_s = 0.1 * 10 ** chance.random()  # 100 ms to 1 s
    long_s = short_s * chance.uniform(2, 8)
    mixed = number % 2 == 1
    mean_s = sum(runs(chance, short_s, long_s, COUNTED_RUNS, mixed=mixed)) / COUNTED_RUNS
    return DrawnYard(
        number,
        rate=chance.uniform(1.5, 8.0) / mean_s,
        short_s=short_s,
        long_s=long_s,
        mixed=mixed,
        promise_s=max(mean_s * 0.3 * 12 ** chance.random(), 0.25),
    )


def runs(chance: random.Random, short_s: float, long_s: float, count: int, *, mixed: bool) -> list[float]:
    """Return run times by chance."""
    from switchyard.operations.plan import by_percentiles

    if not mixed:
        return chance.choices(by_percentiles(short_s, long_s), k=count)
    return [
        (long_s if chance.random() < 0.1 else short_s) * chance.uniform(0.7, 1.3)  # around one of the two
        for _ in range(count)
    ]


def planned(yard: DrawnYard, seed: int) -> Any:
    """Return the plan's outlook with the slots that it names."""
    from switchyard.broker.stores.yard_facts import CLASSES, LEAST_MS, RUN_MS, RUNS
    from switchyard.operations.plan import Demand, by_counts, by_percentiles, least_slots

    points = by_percentiles(yard.short_s, yard.long_s)
    if yard.mixed:
        seen = runs(random.Random(f"{seed}/{yard.number}/seen"), yard.short_s, yard.long_s, COUNTED_RUNS, mixed=True)
        counts = {RUN_MS: int(sum(seen) * 1_000)}
        for run_s in seen:
            of = RUNS + next(n for n in range(CLASSES) if run_s * 1_000 <= LEAST_MS * 2**n)
            counts[of] = counts.get(of, 0) + 1
        points = by_counts(counts)
    return least_slots(Demand((yard.rate,) * MINUTES, points), yard.promise_s)


def really(
    bench: Bench, yard: DrawnYard, slots: int, seed: int, *, warm_s: float = WARM_S, counted_s: float = 60.0 * MINUTES
) -> dict[str, float]:
    """Run a yard with so many slots, and return the share of late tasks and the 95th percentile of the waits."""
    chance = random.Random(f"{seed}/{yard.number}/run")
    gaps_s: list[float] = []
    while sum(gaps_s) < warm_s + counted_s:
        gaps_s.append(chance.expovariate(yard.rate))
    works_s = runs(chance, yard.short_s, yard.long_s, len(gaps_s), mixed=yard.mixed)
    with bench.stage(SUPERVISED, BENCH_SLOTS=str(slots)) as stage:
        stage.start_workers(1, slots=slots)
        stage.sender.paced(gaps_s, works_s=works_s)
        records = stage.wait_for_records(len(gaps_s), timeout_s=600.0)
    begin_s = min(record.sent_s for record in records) + warm_s
    waits_s = [record.waited_ms / 1_000 for record in records if record.sent_s >= begin_s]
    late = sum(wait_s > yard.promise_s for wait_s in waits_s)
    return {"messages": len(waits_s), "late": late / len(waits_s), "p95_s": quantile(waits_s, 0.95)}


def compare(bench: Bench, yard: DrawnYard, seed: int) -> dict[str, Any]:
    """Plan and run a yard; return everything that was found."""
    found = planned(yard, seed)
    sides = [found.slots, found.slots - 2] if found.slots > 2 else [found.slots]
    with ThreadPoolExecutor(len(sides)) as threads:
        named, *fewer = threads.map(lambda slots: really(bench, yard, slots, seed), sides)
    low_s, high_s = found.p95_s
    return {
        "yard": asdict(yard), "plan": asdict(found), "named": named, "two_less": fewer[0] if fewer else None,
        "slots_hold": named["late"] <= 0.01 and not (fewer and fewer[0]["late"] <= 0.01),
        "range_holds": low_s <= named["p95_s"] <= high_s,
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """Return a yard's result as a line."""
    yard, plan, named, less = found["yard"], found["plan"], found["named"], found["two_less"]
    low_ms, high_ms = (1_000 * each for each in plan["p95_s"])
    less_text = f"{less['late']:.1%} with 2 less" if less else "2 less are none"
    return (
        f"{yard['number']:>3}  {yard['rate']:5.1f}/s of {yard['short_s']:.3f} / {yard['long_s']:.3f} s"
        f"{' mixed' if yard['mixed'] else '      '}  within {yard['promise_s']:.2f} s: {plan['slots']} slots, "
        f"late {named['late']:.1%}, {less_text}; p95 {1_000 * named['p95_s']:.0f} ms of {low_ms:.0f} to {high_ms:.0f}; "
        f"slots {'hold' if found['slots_hold'] else 'DO NOT HOLD'}, "
        f"range {'holds' if found['range_holds'] else 'DOES NOT HOLD'}"
    )


def known(log: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what a log has of a seed."""
    for text in log.read_text().splitlines() if log.exists() else ():
        found = json.loads(text)
        if found["seed"] == seed:
            yield found


def main(given: Sequence[str]) -> int:
    """Compare the yards that the log does not have, and judge all of them."""
    parser = argparse.ArgumentParser("benchmarks.planned_yards", description=__doc__)
    parser.add_argument("--yards", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="yards that run beside each other")
    parser.add_argument("--log", type=Path, default=Path("var/planned_yards.jsonl"), metavar="FILE")
    asked = parser.parse_args(given)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    done = {found["yard"]["number"]: found for found in known(asked.log, asked.seed)}
    missing = [draw(asked.seed, number) for number in range(asked.yards) if number not in done]
    bench = Bench(Environments(Path("var/bench")))
    asked.log.parent.mkdir(parents=True, exist_ok=True)
    for found in done.values():
        print(line(found))
    with ThreadPoolExecutor(asked.at_once) as threads:
        for found in threads.map(lambda yard: compare(bench, yard, asked.seed), missing):
            done[found["yard"]["number"]] = found
            with asked.log.open("a") as log:
                log.write(json.dumps({"seed": asked.seed, **found}) + "\n")
            print(line(found), flush=True)
    slots, ranges = (sum(found[name] for found in done.values()) for name in ("slots_hold", "range_holds"))
    print(f"seed {asked.seed}: of {len(done)} yards the slots of {slots} hold, the ranges of {ranges}")
    return int(min(slots, ranges) < HOLD * len(done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
