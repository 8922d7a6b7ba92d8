"""The task of every peer: append one record of its start to a file, nothing else.

Runs in the peers' own environments, so it needs the standard library alone. Times are seconds of the system's
monotonic clock, which all processes of a machine share.
"""

import asyncio
import functools
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LAYOUT = struct.Struct("<ddII")  # sent, started, worker, number: 24 bytes
PROBE = 0xFFFFFFFF  # number of a task that only probes whether a worker runs
FILLER = "Quarterly statement, second reminder; sent on behalf of the billing department of the Northern branch."


class Record(NamedTuple):
    """One start of one task."""

    sent_s: float
    started_s: float
    worker: int
    number: int

    @property
    def waited_ms(self) -> float:
        """Time from sending it (or from when it was due) to its start."""
        return (self.started_s - self.sent_s) * 1000


def payload(number: int, *, work_s: float = 0.0, later_s: float = 0.0) -> dict[str, object]:
    """Return a task's only argument, about 200 bytes of JSON.

    Args:
        work_s: The task sleeps so long after its record.
        later_s: It is due so much later than now.
    """
    return {
        "number": number,
        "sent_s": time.monotonic() + later_s,
        "work_s": work_s,
        "customer": "customer-000042",
        "note": FILLER,
    }


def run(task: dict[str, Any]) -> None:
    """Do the work of a task."""
    write(task)
    if task["work_s"]:
        time.sleep(task["work_s"])


async def run_async(task: dict[str, Any]) -> None:
    """Do the work of a task in a loop."""
    write(task)
    if task["work_s"]:
        await asyncio.sleep(task["work_s"])


def write(task: dict[str, Any]) -> None:
    """Append a task's record, with one write."""
    started_s = time.monotonic()
    os.write(_file(), LAYOUT.pack(task["sent_s"], started_s, _worker(), int(task["number"])))


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a file without probes, up to the first incomplete record."""
    data = path.read_bytes()
    whole = len(data) // LAYOUT.size * LAYOUT.size
    for fields in LAYOUT.iter_unpack(data[:whole]):
        if fields[3] != PROBE:
            yield Record(*fields)


@functools.cache
def _file() -> int:
    return os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@functools.cache
def _worker() -> int:
    return int(os.environ["BENCH_WORKER"])
