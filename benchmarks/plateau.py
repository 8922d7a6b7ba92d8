"""``bin/bench plateau ACTOR [ARGUMENTS]``: the concurrency at which an actor of yours stops gaining.

    bin/bench plateau send_welcome_mail '["ada@example.com"]' an actor of the project: it really runs
    bin/bench plateau build_report '[7]' --kind processes

Doubles the slots of one pool on a temporary broker until a step gains less than a tenth, and prints the last one that
gained.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import django

from switchyard.broker.topology import PoolKind

# Tasks of each slot in a step: fewer say more of the start and the end than of the rate.
TASKS_PER_SLOT = 8
GAIN = 1.1


def climb(rate_with: Callable[[int], float], most: int) -> list[tuple[int, float]]:
    """Return slots and rate of each step: from 1, doubled until one gains less than a tenth, or to ``most``."""
    steps = [(1, rate_with(1))]
    while steps[-1][0] * 2 <= most and (len(steps) < 2 or steps[-1][1] >= GAIN * steps[-2][1]):
        slots = steps[-1][0] * 2
        steps.append((slots, rate_with(slots)))
    return steps


def plateau_of(steps: list[tuple[int, float]]) -> int:
    """Return the slots of the last step that gained a tenth or more."""
    found = steps[0]
    for step in steps[1:]:
        if step[1] >= GAIN * found[1]:
            found = step
    return found[0]


def main(given: list[str]) -> int:
    """Measure, print a row a step, and return the exit code: 1 where a step could not be measured."""
    asked = _arguments(given)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    from devtools.measuring.run import NotMeasured, measure
    from devtools.measuring.work import read_work

    try:
        work = read_work(asked.actor, asked.arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    def rate_with(slots: int) -> float:
        size = (slots, 1) if asked.kind == "processes" else (1, slots)
        tasks = max(asked.tasks, TASKS_PER_SLOT * slots)
        found = measure(asked.kind, *size, work, tasks=tasks, timeout_s=asked.timeout)
        print(
            f"{slots:>6} slots  {found.tasks_per_s:>9,.1f} tasks/s  p95 {found.p95_ms:>8,.1f} ms  "
            f"{found.memory_mb:>5,.0f} MB  CPU {found.cpu_percent:>4,.0f} %  failed {found.failed}",
            flush=True,
        )
        return found.tasks_per_s

    try:
        steps = climb(rate_with, asked.most)
    except NotMeasured as error:
        print(error, file=sys.stderr)
        return 1
    best = plateau_of(steps)
    print(
        f"plateau: {asked.actor} gains up to {best} slots of {asked.kind}; more cost memory and gain less than a tenth"
    )
    if asked.json:
        Path(asked.json).write_text(json.dumps({"kind": asked.kind, "plateau": best, "steps": steps}, indent=2) + "\n")
    return 0


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bin/bench plateau", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("actor", help="an actor of the project")
    parser.add_argument("arguments", nargs="?", default="", help="its arguments as JSON: a list, or an object")
    parser.add_argument("--kind", choices=get_args(PoolKind), default="threads")
    parser.add_argument("--most", type=int, default=128, metavar="N", help="slots at which it ends, default 128")
    parser.add_argument("--tasks", type=int, default=100, metavar="N", help="tasks of a step at least, default 100")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds of a step, default 120")
    parser.add_argument("--json", metavar="FILE", help="write the steps there")
    return parser.parse_args(given)
