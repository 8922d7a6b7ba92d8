"""Sends tasks through one adapter, as told by lines of JSON on standard input; answers each with one line.

python -m benchmarks.peers.sender ADAPTER
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from benchmarks.records import payload


async def one_by_one(adapter: ModuleType, *, numbers: Sequence[int], work_s: float = 0.0) -> float:
    """Enqueue one task after another."""
    started_s = time.perf_counter()
    for number in range(*numbers):
        await _enqueue(adapter, payload(number, work_s=work_s))
    return time.perf_counter() - started_s


async def bulk(adapter: ModuleType, *, numbers: Sequence[int], work_s: float = 0.0) -> float:
    """Enqueue many tasks in one call."""
    tasks = [payload(number, work_s=work_s) for number in range(*numbers)]
    started_s = time.perf_counter()
    done = adapter.enqueue_many(tasks)
    if asyncio.iscoroutine(done):
        await done
    return time.perf_counter() - started_s


async def paced(adapter: ModuleType, *, gaps_s: list[float], numbers: Sequence[int], work_s: float = 0.0) -> float:
    """Enqueue one task after each gap; what was late does not delay those after it."""
    started_s = due_s = time.perf_counter()
    for number, gap_s in zip(range(*numbers), gaps_s, strict=True):
        due_s += gap_s
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        await _enqueue(adapter, payload(number, work_s=work_s))
    return time.perf_counter() - started_s


async def _enqueue(adapter: ModuleType, task: dict[str, Any]) -> None:
    done = adapter.enqueue(task)
    if asyncio.iscoroutine(done):
        await done


VERBS = {"one_by_one": one_by_one, "bulk": bulk, "paced": paced}


async def _serve(adapter: ModuleType) -> None:
    if hasattr(adapter, "start"):
        await adapter.start()
    for line in sys.stdin:
        asked = json.loads(line)
        took_s = await VERBS[asked.pop("verb")](adapter, **asked)
        print(json.dumps({"took_s": took_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")))
