"""Benchmark of comparing arguments with annotations: CPU of sending and running a message of plain arguments.

This checkout and an older one send and run messages of one actor with annotated plain arguments, each round in new
processes, through the whole stack, on the broker in memory of :mod:`switchyard.testing`: the answers of a server would
add noise. Rounds alternate; each is the fastest of 40 batches of 50 messages. Printed: the medians, and the median of
the differences with quartiles, by the processes' own clocks.

    git worktree add /path/before <commit>
    python -m benchmarks.typed_arguments /path/before [--rounds 20]
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

BATCHES, MESSAGES = 40, 50
HERE = Path(__file__).resolve()


class Side:
    """A checkout, in a process that runs a round for each line that it reads."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0", "DJANGO_SETTINGS_MODULE": "project.settings",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--serve"], cwd=checkout, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def round(self) -> float:
        """Return the CPU of one message in µs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Run a round for each line of the input, and print its CPU a message in µs."""
    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    import dramatiq

    from switchyard.testing import in_memory, run_enqueued

    with in_memory():

        @dramatiq.actor(queue_name="default")
        def work(number: int, title: str, price: float, tags: list[str], *, note: str | None = None) -> None:
            """Do nothing."""

        for _ in sys.stdin:
            gc.collect()
            gc.disable()
            spent_s = []
            for _ in range(BATCHES):
                start_s = time.process_time()
                for number in range(MESSAGES):
                    work.send(number, "a title", 1.5, ["a", "b"], note="a note")
                run_enqueued()
                spent_s.append(time.process_time() - start_s)
            gc.enable()
            sys.stdout.write(f"{min(spent_s) / MESSAGES * 1e6}\n")
            sys.stdout.flush()


def compare(before: Path, rounds: int) -> list[tuple[float, float]]:
    """Return the CPU of a message before and now, in µs, for each round."""
    checkouts = [before, HERE.parents[1]]
    found: list[tuple[float, float]] = []
    for number in range(rounds):
        spent: dict[Path, float] = {}
        for checkout in checkouts if number % 2 else checkouts[::-1]:
            side = Side(checkout)  # a new process: its memory lies elsewhere, which makes it faster or slower
            side.round()  # warms up
            spent[checkout] = side.round()
            side.stop()
        found.append((spent[checkouts[0]], spent[checkouts[1]]))
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    found = compare(options.before.resolve(), options.rounds)
    old, new = (median(side) for side in zip(*found, strict=True))
    low, middle, high = quantiles([now - then for then, now in found], n=4)
    print(f"CPU a message: {old:.1f} µs before, {new:.1f} µs now")
    print(f"difference: {middle:+.2f} µs (quartiles {low:+.2f} to {high:+.2f}), {len(found)} rounds")


if __name__ == "__main__":
    main()
