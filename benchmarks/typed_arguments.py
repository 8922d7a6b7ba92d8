"""Benchmark of comparing arguments with annotations: CPU of sending and running a message of plain arguments.

This checkout and an older one, each in a process of its own, send and run messages of one actor with annotated plain
arguments, on one server in memory, with the whole stack. Rounds alternate. Printed: the median of the differences of
CPU a message (the processes' own clocks), with quartiles.

    git worktree add /path/before <commit>
    python -m benchmarks.typed_arguments /path/before [--rounds 20] [--messages 2000]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve()


class Side:
    """A checkout, in a process that runs a round for each line that it reads."""

    def __init__(self, checkout: Path, url: str, messages: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout), "DJANGO_SETTINGS_MODULE": "project.settings"}
        command = [sys.executable, str(HERE), "--serve", url, "--messages", str(messages)]
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

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


def serve(url: str, messages: int) -> None:
    """Run a round for each line of the input, and print its CPU a message in µs."""
    import django

    django.setup()
    import dramatiq
    from dramatiq import Worker

    from apps.platform.wiring import build_yard
    from broker.keys.keys import Keys
    from broker.redis.connections import connect
    from broker.topology import Pool, Queue, Yard

    yard = Yard(
        queues=(Queue("work", 1_000, 60_000, 90_000),),
        pools=(Pool("work", "threads", ("work",), processes=1, slots=1, shared_retries=True),),
    )
    broker = build_yard(yard, connect(url), Keys(prefix=f"bench-{os.getpid()}"))

    @dramatiq.actor(broker=broker, queue_name="work")
    def work(number: int, title: str, price: float, tags: list[str], *, note: str | None = None) -> None:
        """Do nothing."""

    for _ in sys.stdin:
        start_s = time.process_time()
        for number in range(messages):
            work.send(number, "a title", 1.5, ["a", "b"], note="a note")
        worker = Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        broker.join("work", timeout=120_000)
        spent_s = time.process_time() - start_s
        worker.stop()
        sys.stdout.write(f"{spent_s / messages * 1e6}\n")
        sys.stdout.flush()


def compare(before: Path, rounds: int, messages: int) -> list[float]:
    """Return what this checkout needs more for a message, in µs, for each round."""
    from benchmarks.server import MemoryServer

    found: list[float] = []
    with TemporaryDirectory() as folder:
        server: Any = MemoryServer(Path(folder)).start()
        sides = [Side(checkout, server.url, messages) for checkout in (before, HERE.parents[1])]
        for number in range(rounds + 1):
            order = sides if number % 2 else sides[::-1]
            spent = {side: side.round() for side in order}
            if number:  # the first round warms up
                found.append(spent[sides[1]] - spent[sides[0]])
        for side in sides:
            side.stop()
        server.stop()
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--serve", metavar="URL")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.messages)
        return
    found = compare(options.before, options.rounds, options.messages)
    low, _, high = quantiles(found, n=4)
    print(f"CPU a message: {median(found):+.2f} µs (quartiles {low:+.2f} to {high:+.2f}), {len(found)} rounds")


if __name__ == "__main__":
    main()
