"""Client of the process that sends tasks (``benchmarks/peers/sender.py``)."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.records import PROBE

ANSWER_TIMEOUT_S = 900.0


class PeerFailed(Exception):
    """A peer did not complete a request in time."""


class Sender:
    """The process that sends tasks (``benchmarks/peers/sender.py``)."""

    def __init__(self, process: subprocess.Popen[str], log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def one_by_one(self, count: int, *, first: int = 0, **options: Any) -> float:
        """Enqueue tasks one after another and return the seconds it took."""
        return self._ask("one_by_one", numbers=[first, first + count], **options)

    def bulk(self, count: int, *, first: int = 0, **options: Any) -> float:
        """Enqueue tasks in one call and return the seconds it took."""
        return self._ask("bulk", numbers=[first, first + count], **options)

    def paced(self, gaps_s: Sequence[float], *, first: int = 0, **options: Any) -> float:
        """Enqueue a task after each gap, and return when all are sent."""
        return self._ask("paced", numbers=[first, first + len(gaps_s)], gaps_s=list(gaps_s), **options)

    def later(self, count: int, *, after_s: float, first: int = 0, **options: Any) -> float:
        """Enqueue tasks that fall due ``after_s`` from now, or spread over ``spread_s`` after that."""
        return self._ask("later", numbers=[first, first + count], after_s=after_s, **options)

    def turn_over(self, count: int) -> float:
        """Fetch and acknowledge tasks without any worker, and return the seconds it took."""
        return self._ask("turn_over", count=count)

    def group(self, count: int, *, work_s: float) -> float:
        """Run a group of tasks, wait for it, and return the seconds it took."""
        return self._ask("group", numbers=[count], work_s=work_s)

    def probe(self, count: int, **options: Any) -> None:
        """Enqueue tasks that only probe whether workers run."""
        for _ in range(count):
            self._ask("one_by_one", numbers=[PROBE, PROBE + 1], **options)

    def _ask(self, verb: str, **options: Any) -> float:
        stdin, stdout = pipe(self._process.stdin), pipe(self._process.stdout)
        with contextlib.suppress(BrokenPipeError):  # it has ended and cannot answer: see below
            stdin.write(json.dumps({"verb": verb, **options}) + "\n")
            stdin.flush()
        patience = threading.Timer(ANSWER_TIMEOUT_S, self._process.kill)
        patience.start()
        try:
            answer = stdout.readline()
        finally:
            patience.cancel()
        if not answer:
            raise PeerFailed(f"the sender ended with code {self._process.wait()}\n{self._log_path.read_text()}")
        return float(json.loads(answer)["took_s"])


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and close its pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return the stream of a process that was started with a pipe."""
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream
