"""Pools to compare, and the yard in which one of them is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from switchyard.broker.topology import Pool, PoolKind, Queue, Yard

POOL = "measured"
SAMPLES_QUEUE = "measured"
THREADS, GREENLETS = (4, 16), (16, 64)


@dataclass(frozen=True, slots=True)
class Contender:
    """A pool's kind and size, written ``threads:1x16``."""

    kind: PoolKind
    processes: int
    slots: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.processes}x{self.slots}"


def read_contender(text: str) -> Contender:
    """Return the contender of ``threads:1x16``, ``processes:2x1`` or ``gevent:1x64``.

    Raises:
        ValueError: the text has another form, or a size is out of range.
    """
    kind, _, size = text.partition(":")
    processes, _, slots = size.partition("x")
    if kind not in ("threads", "processes", "gevent") or not (processes.isdigit() and slots.isdigit()):
        raise ValueError(f"{text!r} is no pool; write kind:PROCESSESxSLOTS, for example threads:1x16 or gevent:1x64")
    found = Contender(kind, int(processes), int(slots))  # type: ignore[arg-type]
    if min(found.processes, found.slots) < 1 or (kind == "processes" and found.slots > 1):
        raise ValueError(f"{text!r}: sizes are at least 1, and processes have one slot each")
    return found


def usual_contenders() -> tuple[Contender, ...]:
    """Return the default contenders: each kind in two or three sizes."""
    cpus = os.cpu_count() or 1
    wide = dict.fromkeys((1, cpus, 2 * cpus))
    return (
        *(Contender("threads", 1, slots) for slots in THREADS),
        *(Contender("processes", count, 1) for count in wide),
        *(Contender("gevent", 1, slots) for slots in GREENLETS),
    )


def yard_with(yard: Yard, queue: str, contender: Contender) -> Yard:
    """Return a yard in which one additional pool alone serves ``queue``; the samples' queue is added if named."""
    queues = yard.queues
    if queue == SAMPLES_QUEUE and all(known.name != queue for known in queues):
        queues = (*queues, Queue(queue, None, soft_limit_ms=60_000, hard_limit_ms=90_000))
    others = [replace(pool, queues=tuple(lane for lane in pool.queues if lane != queue)) for pool in yard.pools]
    measured = Pool(POOL, contender.kind, (queue,), processes=contender.processes, slots=contender.slots)
    pools = (measured, *(pool for pool in others if pool.queues or pool.shared_retries))
    return replace(yard, queues=queues, pools=pools)
