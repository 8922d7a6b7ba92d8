"""Benchmark of a cluster: processor time of the servers and of the client for each message, beside one server.

Of the servers in four ways: while a worker drains four queues at once, while it drains one after the other, while tasks
come at a steady rate to all four, and while a single client calls one server after the other. Several servers that work
at once on the cores of one machine find code and data in the processor's caches less often, with a cluster and without;
those that work by turns hardly do, as those on machines of their own.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import drain_rate
from benchmarks.memory_cluster import MemoryCluster
from benchmarks.peers import OURS, Peer
from benchmarks.records import Record
from benchmarks.server import MemoryServer
from benchmarks.stage import MEMORY_DIR, Stage
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect

# On all of three masters that share the slots alike: first, second, third, third.
QUEUES = ("b", "c", "a", "d")
# Name in figures -> masters; none is one server outside of a cluster, under a plain address.
SERVERS = {"alone": 0, "of_1": 1, "of_3": 3}
# As many servers, without a cluster: what several processes cost whatever they are.
APART, SERVERS_APART = "apart", 3
# Slices are short, so that other work on the machine slows all servers down alike; their medians are compared.
SLICES, LEAST_SLICES, SLICE, AT_ONCE = 60, 10, 320, 8
BARE_CALLS = 10_000
BODY = b"x" * 400
OWNER = "bench.1/live"
# Name in figures -> masters of a drain, and its queues; "on_2" leaves one of three masters without a queue.
DRAINED = {"alone": (0, QUEUES), "on_2": (3, ("b", "c", "f", "g")), "of_3": (3, QUEUES)}
SLOTS = 8
# To all queues together: more than a sender of one process reaches on a slow machine would be no rate.
STEADY_PER_S, STEADY_S = 1_000, 5


class Side:
    """One kind of server with its client, and the processor time of its slices, in microseconds for each message."""

    def __init__(self, folder: Path, masters: int) -> None:
        self.server: Any = MemoryCluster(folder, masters) if masters else MemoryServer(folder)
        self.server_us: list[float] = []
        self.client_us: list[float] = []
        self._held: list[Any] = [() for _ in QUEUES]
        self._number = 0

    def connect(self) -> None:
        """Connect to the running server."""
        self.calls: Any = calls_on(connect(self.server.url))
        self._join([self.calls] * len(QUEUES))

    def close(self) -> None:
        """Close the connections."""
        self.calls.close()

    def _join(self, calls: Sequence[Any]) -> None:
        self._families = [
            QueueOperations(one, Keys("bench").queue(queue)) for one, queue in zip(calls, QUEUES, strict=True)
        ]
        for family in self._families:
            family.join(OWNER)

    def run_slice(self) -> None:
        """Send messages one by one to each queue in turn, fetch them in batches, acknowledge with the next fetch."""
        server_s, client_s = self.server.cpu_s(), time.thread_time()
        for _ in range(SLICE // (AT_ONCE * len(QUEUES))):
            for at, family in enumerate(self._families):
                for _ in range(AT_ONCE):
                    family.enqueue([Entry(f"m-{self._number}", BODY)])
                    self._number += 1
                found = family.fetch(OWNER, AT_ONCE, request=self._number, acked=self._held[at])
                self._held[at] = [grant.lease for grant in found.grants]
        client_s = time.thread_time() - client_s
        self.client_us.append(client_s * 1e6 / SLICE)
        self.server_us.append((self.server.cpu_s() - server_s) * 1e6 / SLICE)


class Servers:
    """Servers without a cluster."""

    def __init__(self, folder: Path) -> None:
        self._servers = [MemoryServer(folder / str(number)) for number in range(SERVERS_APART)]
        self._open = contextlib.ExitStack()

    @property
    def urls(self) -> list[str]:
        """Address of each queue's server: the last one has two queues, as in the cluster."""
        return [self._servers[min(number, SERVERS_APART - 1)].url for number in range(len(QUEUES))]

    def cpu_s(self) -> float:
        """Read the processor time of all servers together."""
        return sum(server.cpu_s() for server in self._servers)

    def __enter__(self) -> Servers:
        with contextlib.ExitStack() as stack:
            for server in self._servers:
                stack.enter_context(server)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class SideApart(Side):
    """Servers without a cluster, the queues shared out among them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 0)
        self.server = Servers(folder)

    def connect(self) -> None:
        """Connect to the running servers."""
        self.calls = [calls_on(connect(url)) for url in self.server.urls]
        self._join(self.calls)

    def close(self) -> None:
        """Close the connections."""
        for one in self.calls:
            one.close()


def measure(bench: Bench, peer: Peer) -> Figures:
    """Measure calls of a single client, then drains by workers."""
    figures = {} if peer.whole_stack else calls(bench)
    for name, (masters, queues) in random.sample(list(DRAINED.items()), len(DRAINED)):
        figures |= drain(bench, peer, name, masters, queues)
    return figures


def drain(bench: Bench, peer: Peer, name: str, masters: int, queues: Sequence[str]) -> Figures:
    """Drain four queues with one worker: backlogs of all at once, of one after the other, then what comes steadily."""
    share = bench.count(peer.backlog // 2, least=200)
    with bench.stage(peer, BENCH_LANES=" ".join(queues)).on_cluster(masters) as stage:
        stage.start_workers(1, slots=SLOTS)
        at_once_s, records = drained(stage, queues, share, first=0)
        count = len(records)
        by_turns_s = sum(
            drained(stage, [queue], share, first=count + number * share)[0] for number, queue in enumerate(queues)
        )
        steady_s = steadily(stage, queues, bench.count(STEADY_S, least=1) * STEADY_PER_S, first=2 * count)
    return {
        f"cluster_{name}_task_us": at_once_s * 1e6 / count,
        f"cluster_{name}_turns_us": by_turns_s * 1e6 / count,
        f"cluster_{name}_steady_us": steady_s * 1e6,
        f"cluster_{name}_per_s": drain_rate(records),
    }


def drained(stage: Stage, queues: Sequence[str], share: int, *, first: int) -> tuple[float, list[Record]]:
    """Fill some queues with tasks from a number on, and drain them.

    Returns:
        Seconds of processor time of the servers meanwhile, and the records of all tasks so far.
    """
    stage.pause_workers()
    for number, queue in enumerate(queues):
        stage.sender.bulk(share, first=first + number * share, queue=queue)
    before_s = stage.server.cpu_s()
    stage.resume_workers()
    records = stage.wait_for_records(first + len(queues) * share)
    return stage.server.cpu_s() - before_s, records


def steadily(stage: Stage, queues: Sequence[str], count: int, *, first: int) -> float:
    """Send tasks to some queues by turns at an even pace, and run them.

    Returns:
        Seconds of processor time of the servers for each.
    """
    before_s = stage.server.cpu_s()
    stage.sender.paced([1 / STEADY_PER_S] * count, first=first, queues=queues)
    stage.wait_for_records(first + count)
    return (stage.server.cpu_s() - before_s) / count


def calls(bench: Bench) -> Figures:
    """Send, fetch and acknowledge the same messages on each kind of server, in slices by turns."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-bench-", dir=MEMORY_DIR if MEMORY_DIR.is_dir() else None))
    sides = {name: Side(folder / name, masters) for name, masters in SERVERS.items()}
    sides[APART] = SideApart(folder / APART)
    figures: Figures = {}
    try:
        with contextlib.ExitStack() as stack:
            for side in sides.values():
                stack.enter_context(side.server)
                side.connect()
                stack.callback(side.close)
            for _ in range(bench.count(SLICES, least=LEAST_SLICES)):
                for name in random.sample(list(sides), len(sides)):
                    sides[name].run_slice()
            own_us = _own_client_us(sides["alone"], sides["of_1"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, side in sides.items():
        figures[f"cluster_{name}_server_us"] = statistics.median(side.server_us[1:])
        figures[f"cluster_{name}_client_us"] = statistics.median(side.client_us[1:])
    return figures | {"cluster_client_us": own_us}


def _own_client_us(alone: Side, of_1: Side) -> float:
    """Return by how much more of the client's code a call on a cluster runs, without what the sockets cost."""

    def each_us(call: Callable[[], object]) -> float:
        began_s = time.thread_time()
        for _ in range(BARE_CALLS):
            call()
        return (time.thread_time() - began_s) * 1e6 / BARE_CALLS

    def nothing(connection: Any, within_s: float) -> None: ...

    key = Keys("bench").queue(QUEUES[0]).bodies
    plain = partial(alone.calls._until, None, "nothing", nothing)
    aware = partial(of_1.calls._at, key, None, "nothing", nothing)
    return statistics.median(each_us(aware) - each_us(plain) for _ in range(LEAST_SLICES))


BENCHMARK = Benchmark("cluster", "What does a cluster cost for each message, beside one server?", measure, OURS)
