"""Cost of limits to a drain: none, a fair queue, 10,000 customers in one, five at once of each of 2,000 keys."""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import STACK, Peer
from benchmarks.server import MemoryServer

MESSAGES, SLOTS, SLICES = 60_000, 8, 4
KEYS, TENANTS = 2_000, 10_000
# Name of a figure -> whether the queue is fair, options of its actor, and how many values its argument has.
SIDES: dict[str, tuple[bool, dict[str, Any], int]] = {
    "none": (False, {}, KEYS),
    "fair": (True, {}, 10),
    "fair_10000": (True, {}, TENANTS),
    "keys": (False, {"concurrency": "5 per key"}, KEYS),
}


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain the same backlog on each side, all of them by turns, on one server and one worker each."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.supervised_yard.settings")
    import django

    django.setup()
    from switchyard.middleware import logs

    logs.configure("json", level=logging.WARNING)
    count = bench.count(MESSAGES // SLICES, least=200)
    drained = dict.fromkeys(SIDES, 0.0)
    server_s = dict.fromkeys(SIDES, 0.0)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder, MemoryServer(Path(folder)) as server:
        for turn in range(SLICES):
            sides = list(SIDES)
            for name in sides if turn % 2 else sides[::-1]:
                took_s, used_s = _drain(server, name, turn, count)
                drained[name] += took_s
                server_s[name] += used_s
    total = count * SLICES
    rates = {f"limits_{name}_per_s": total / took_s for name, took_s in drained.items()}
    return rates | {f"limits_{name}_server_us": 1e6 * used_s / total for name, used_s in server_s.items()}


def _drain(server: MemoryServer, name: str, turn: int, count: int) -> tuple[float, float]:
    """Return the seconds from a worker's first start to its last, and those that its server works for the backlog."""
    is_fair, options, values = SIDES[name]
    starts: list[float] = []
    ended = threading.Event()

    def work(key: int) -> None:
        starts.append(time.perf_counter())
        if len(starts) >= count:
            ended.set()

    with _broker(server, f"{name}-{turn}", is_fair=is_fair) as (broker, worker_of):
        import dramatiq

        from switchyard.broker.queue import limits
        from switchyard.broker.topology import FairShare

        actor = dramatiq.actor(work, broker=broker, queue_name="work", **options)
        family = broker.lane("work")[0]
        limits.declare(family, [actor])
        limits.declare_fair(family, FairShare("key") if is_fair else None, [actor])
        broker.enqueue_many([actor.message(number % values) for number in range(count)])
        before_s = server.cpu_s()
        with worker_of():
            if not ended.wait(120):
                raise TimeoutError(f"limits, {name}: {len(starts)} of {count} messages started within 120 s")
            return max(starts) - min(starts), server.cpu_s() - before_s


@contextmanager
def _broker(server: MemoryServer, prefix: str, *, is_fair: bool) -> Iterator[tuple[Any, Callable[[], Any]]]:
    import dramatiq

    from switchyard.broker.keys import Keys
    from switchyard.broker.redis.connections import connect
    from switchyard.broker.topology import Pool, Queue, Yard
    from switchyard.wiring import build_yard

    fair = {"fair_by": "key"} if is_fair else {}
    yard = Yard(
        queues=(Queue("work", 1_000, 10_000, 15_000, **fair),),
        pools=(Pool("work", "threads", ("work",), 1, SLOTS), Pool("r", "threads", (), 1, 1, shared_retries=True)),
    )
    broker = build_yard(yard, connect(server.url), Keys(prefix))

    @contextmanager
    def worker_of() -> Iterator[None]:
        worker = dramatiq.Worker(broker, queues={"work"}, worker_threads=SLOTS, worker_timeout=100)
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    try:
        yield broker, worker_of
    finally:
        broker.close()


BENCHMARK = Benchmark("limits", "What do fairness and limits by key cost a drain?", measure, (STACK,))
