"""Process that sends tasks through one adapter. Reads requests as lines of JSON and answers each with one line.

python -m benchmarks.peers.sender ADAPTER
"""

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle, repeat
from typing import Any

from benchmarks.peers.loading import load
from benchmarks.records import payload

CHUNK = 500


async def one_by_one(adapter: Any, *, numbers: Sequence[int], work_s: float = 0.0, **where: str) -> float:
    """Enqueue one task after another."""
    started_s = time.perf_counter()
    for number in range(*numbers):
        await _done(adapter.enqueue(payload(number, work_s=work_s), **where))
    return time.perf_counter() - started_s


async def bulk(adapter: Any, *, numbers: Sequence[int], work_s: float = 0.0, **where: str) -> float:
    """Enqueue many tasks in one call."""
    tasks = [payload(number, work_s=work_s) for number in range(*numbers)]
    started_s = time.perf_counter()
    await _done(adapter.enqueue_many(tasks, **where))
    return time.perf_counter() - started_s


async def paced(
    adapter: Any,
    *,
    gaps_s: list[float],
    numbers: Sequence[int],
    work_s: float = 0.0,
    works_s: Sequence[float] = (),
    queues: Sequence[str] = (),
    **where: str,
) -> float:
    """Enqueue one task after each gap, to several queues by turns; a late task does not delay the following ones.

    Args:
        works_s: Work of each task, in place of ``work_s``.
    """
    places = cycle([{**where, "queue": queue} for queue in queues] or [where])
    started_s = due_s = time.perf_counter()
    works = works_s or repeat(work_s)
    for number, gap_s, own_s, place in zip(range(*numbers), gaps_s, works, places, strict=False):
        due_s += gap_s
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        await _done(adapter.enqueue(payload(number, work_s=own_s), **place))
    return time.perf_counter() - started_s


async def later(
    adapter: Any, *, numbers: Sequence[int], after_s: float, spread_s: float = 0.0, work_s: float = 0.0, **where: str
) -> float:
    """Enqueue tasks that fall due ``after_s`` from now, evenly over ``spread_s``, a chunk at each moment."""
    started_s = time.monotonic()
    chosen = range(*numbers)
    for start in range(0, len(chosen), CHUNK):
        due_s = started_s + after_s + spread_s * start / len(chosen)
        left_s = max(due_s - time.monotonic(), 0.001)
        tasks = [payload(number, work_s=work_s, later_s=left_s) for number in chosen[start : start + CHUNK]]
        await _done(adapter.enqueue_many(tasks, delay_ms=int(left_s * 1000), **where))
    return time.monotonic() - started_s


async def turn_over(adapter: Any, *, count: int) -> float:
    """Fetch and acknowledge so many tasks that wait, without any worker."""
    return float(adapter.turn_over(count))


async def group(adapter: Any, *, numbers: Sequence[int], work_s: float) -> float:
    """Enqueue tasks as a group and wait until all are done."""
    tasks = [payload(number, work_s=work_s) for number in range(*numbers)]
    started_s = time.perf_counter()
    adapter.group(tasks)
    return time.perf_counter() - started_s


async def _done(sent: Any) -> None:
    if inspect.isawaitable(sent):
        await sent


VERBS = {verb.__name__: verb for verb in (one_by_one, bulk, paced, later, turn_over, group)}


async def _serve(adapter: Any) -> None:
    if hasattr(adapter, "start"):
        await adapter.start()
    for line in sys.stdin:
        asked = json.loads(line)
        took_s = await VERBS[asked.pop("verb")](adapter, **asked)
        print(json.dumps({"took_s": took_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(load(sys.argv[1])))
