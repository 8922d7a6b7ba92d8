"""Benchmark of the server's cost of Streams and of lists with Lua.

One client, no Dramatiq. Lists: our own scripts (``switchyard/broker/queue/operations.py``). Streams: a consumer group,
where an acknowledged entry is also deleted, as a queue needs it. Printed, medians of alternating rounds: the server's
processor time per message to enqueue 500 at a time, and to fetch and acknowledge ``B`` at a time (each acknowledged in
the round trip that fetches the next); bytes per queued message, per leased one beside that, and per finished one (its
id is remembered for a while); wake-up of an idle consumer.

    python -m benchmarks.lists_or_streams [--rounds 5] [--messages 10000] [--wakes 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import redis

from benchmarks.figures import quantile, spread
from benchmarks.server import MemoryServer
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import AT_ONCE, Entry, Lease, QueueOperations, fetched
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.worker.wakeup import Wakeup

BODY = b"x" * 180
BATCHES = (1, 16, 64)


class Side(Protocol):
    """One implementation of a queue."""

    def enqueue(self, ids: list[str]) -> None:
        """Add messages, at most 500."""

    def fetch(self, count: int) -> int:
        """Acknowledge the messages of the last fetch, fetch more in the same round trip, and return how many came."""

    def wait(self) -> None:
        """Block until a message arrives, fetch it and acknowledge it."""


class Lists:
    """This project's queue: lists and Lua."""

    def __init__(self, url: str) -> None:
        self._family = QueueOperations(RedisCalls(connect(url)), Keys("bench").queue("q"))
        self._family.join("bench/live", lease_ms=3_600_000)
        self._requests = itertools.count(1)
        self._held: list[Lease] = []
        self._bell = Wakeup(self._family.calls, self._family.keys.wakeup("live"))

    def enqueue(self, ids: list[str]) -> None:
        self._family.enqueue([Entry(id_, BODY) for id_ in ids])

    def fetch(self, count: int) -> int:
        found = self._family.fetch("bench/live", count, request=next(self._requests), acked=self._held)
        self._held = [grant.lease for grant in found.grants]
        return len(self._held)

    def wait(self) -> None:
        while True:
            call = self._family.fetch_call("bench/live", 1, request=next(self._requests))
            self._bell.request(script("fetch"), *call)
            heard = self._bell.wait(10)
            grants = fetched("bench/live", heard.fetch).grants if heard is not None and heard.fetch else []
            if grants:
                self._family.ack("bench/live", [grant.lease for grant in grants])
                return


class Streams:
    """A stream with one group."""

    def __init__(self, url: str) -> None:
        self._client = connect(url, profile="blocking")
        self._client.xgroup_create("stream", "group", id="0", mkstream=True)
        self._held: list[Any] = []

    def enqueue(self, ids: list[str]) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.xadd("stream", {"id": id_, "body": BODY})
            pipe.execute()

    def fetch(self, count: int) -> int:
        with self._client.pipeline(transaction=False) as pipe:
            if self._held:
                pipe.xack("stream", "group", *self._held)
                pipe.xdel("stream", *self._held)
            pipe.xreadgroup("group", "consumer", {"stream": ">"}, count=count)
            found = pipe.execute()[-1]
        self._held = [id_ for id_, _ in found[0][1]] if found else []
        return len(self._held)

    def wait(self) -> None:
        found = self._client.xreadgroup("group", "consumer", {"stream": ">"}, count=1, block=10_000)
        for id_, _ in found[0][1]:
            self._client.xack("stream", "group", id_)
            self._client.xdel("stream", id_)


SIDES: dict[str, type[Lists] | type[Streams]] = {"lists": Lists, "streams": Streams}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--wakes", type=int, default=100)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    values: dict[str, dict[str, list[float]]] = {}
    for _ in range(asked.rounds):
        for name, side in SIDES.items():
            with TemporaryDirectory() as folder, MemoryServer(Path(folder)) as server:
                for figure, value in _round(side, server, asked.messages, asked.wakes).items():
                    values.setdefault(figure, {}).setdefault(name, []).append(value)
    print(f"{'':<28}" + "".join(f"{name:>28}" for name in SIDES))
    for figure, of_sides in values.items():
        rows = [spread(of_sides[name]) for name in SIDES]
        print(f"{figure:<28}" + "".join(f"{r.median:10.2f} ({r.lowest:6.2f} - {r.highest:6.2f})" for r in rows))
    if asked.json:
        asked.json.write_text(json.dumps(values, indent=2) + "\n")
    return 0


def _round(build: type[Lists] | type[Streams], server: MemoryServer, messages: int, wakes: int) -> dict[str, float]:
    side = build(server.url)
    figures: dict[str, float] = {}
    side.enqueue(["warm"])
    side.fetch(1)
    side.fetch(1)
    for batch in BATCHES:
        empty = server.usage()
        for start in range(0, messages, AT_ONCE):
            side.enqueue([str(uuid.uuid4()) for _ in range(min(AT_ONCE, messages - start))])
        full = server.usage()
        figures["enqueue_us"] = full.since(empty).cpu_s * 1e6 / messages
        figures["bytes_per_queued"] = (full.used_bytes - empty.used_bytes) / messages
        done = 0
        while done < messages:
            done += side.fetch(batch)
        side.fetch(batch)
        drained = server.usage()
        figures[f"fetch_and_ack_{batch}_us"] = drained.since(full).cpu_s * 1e6 / messages
        figures["bytes_per_finished"] = (drained.used_bytes - empty.used_bytes) / messages
    figures["bytes_per_leased"] = _leased(side, server)
    waits = _wakes(side, server.url, build, wakes)
    figures["wake_up_p50_ms"] = quantile(waits, 0.5)
    figures["wake_up_p99_ms"] = quantile(waits, 0.99)
    return figures


def _leased(side: Side, server: MemoryServer) -> float:
    """Return the additional bytes per message while 500 are held."""
    side.enqueue([str(uuid.uuid4()) for _ in range(AT_ONCE)])
    before = server.usage().used_bytes
    side.fetch(AT_ONCE)
    bytes_more = (server.usage().used_bytes - before) / AT_ONCE
    side.fetch(AT_ONCE)
    return bytes_more


def _wakes(side: Side, url: str, build: type[Lists] | type[Streams], count: int) -> list[float]:
    """Return the time from sending a message until an idle consumer has it, in ms."""
    sent: list[float] = []
    got: list[float] = []

    def listen() -> None:
        for _ in range(count):
            side.wait()
            got.append(time.perf_counter())

    listener = threading.Thread(target=listen)
    listener.start()
    sender = QueueOperations(RedisCalls(connect(url)), Keys("bench").queue("q"))
    client: redis.Redis = connect(url)
    for _ in range(count):
        time.sleep(random.uniform(0.01, 0.03))
        sent.append(time.perf_counter())
        if build is Lists:
            sender.enqueue([Entry(str(uuid.uuid4()), BODY)])
        else:
            client.xadd("stream", {"id": str(uuid.uuid4()), "body": BODY})
    listener.join()
    return [(heard - asked) * 1000 for asked, heard in zip(sent, got, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
