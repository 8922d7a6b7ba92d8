"""A large queue is purged, undone and dropped while the process that does it is killed; the server is never held up."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from switchyard.broker.admin.purge import STEP, finish, purges, set_aside
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from tests.chaos.server import ServerUnderTest

REPOSITORY = Path(__file__).parents[2]
PREFIX, QUEUE = "chaos", "purged"
OWNER = "worker/live"
LEASED = 64
BODY = b'{"actor":"an_actor","sent_at":1,"args":["' + b"x" * 400 + b'"]}'
KILLS = 3
# One call in so many may be longer: what was freed is given back to the system by whichever call comes along.
RARE, USUAL_MS, LONGEST_MS = 5_000, 10.0, 50.0


class MeasuredCalls(RedisCalls):
    """Calls that note how much CPU of the server's main thread each call took: it serves nobody else then.

    CPU, not time: on a machine that is shared the server may have to wait for its turn in the middle of a call.
    """

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.took_ms: defaultdict[str, list[float]] = defaultdict(list)

    def call(self, operation: Any, *args: Any, **options: Any) -> Any:
        """Run an operation between two readings."""
        before_s = self._cpu_s()
        answer = super().call(operation, *args, **options)
        self.took_ms[operation.name].append((self._cpu_s() - before_s) * 1_000)
        return answer

    def _cpu_s(self) -> float:
        found: Any = self.client.info("cpu")
        return float(found["used_cpu_user_main_thread"]) + float(found["used_cpu_sys_main_thread"])


def fill(family: QueueOperations, count: int) -> None:
    """Lease some messages, and enqueue others: of ten one is scheduled, one a retry, and three have unique keys."""
    family.join(OWNER, lease_ms=3_600_000)
    family.enqueue([Entry(f"leased-{number}", BODY, f"leased-key-{number}") for number in range(LEASED)])
    assert len(family.fetch(OWNER, LEASED, request=1).grants) == LEASED
    plain = (Entry(f"plain-{number}", BODY) for number in range(count))
    family.enqueue(itertools.islice(plain, count // 10), delay_ms=3_600_000)
    family.enqueue(itertools.islice(plain, count // 10), lane="retry")
    family.enqueue(Entry(f"keyed-{number}", BODY, f"key-{number}") for number in range(3 * count // 10))
    family.enqueue(itertools.islice(plain, count - 5 * (count // 10)))


def state(family: QueueOperations) -> dict[str, int]:
    """Return how many messages lie in each place, and how many unique keys and notes are held."""
    client, k = family.calls.client, family.keys
    return {
        "waiting": int(client.llen(k.waiting("live")[1])),
        "retry": int(client.llen(k.waiting("retry")[1])),
        "scheduled": int(client.zcard(k.due("live"))),
        "bodies": int(client.hlen(k.bodies)),
        "unique": int(client.hlen(k.unique)),
        "notes": int(client.hlen(k.notes)),
        "leased": int(client.hlen(k.hold(OWNER))) - 1,
        "aside": len(client.keys("*}:aside:undone:*") + client.keys("*}:aside:dropped:*")),
    }


def kill_in_the_middle(server: ServerUnderTest, family: QueueOperations, rng: random.Random, *, steps: int) -> None:
    """Let another process go on with the purge until it is killed -9, after a quarter of these steps at most."""
    [purge] = purges(family)
    last = str(rng.randint(2, steps // 4))
    command = [sys.executable, "-m", "tests.chaos.purging", server.url, PREFIX, QUEUE, last]
    ended = subprocess.run(command, cwd=REPOSITORY, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert purges(family) == [replace(purge, claim=purges(family)[0].claim)], "it was not killed in the middle"


# A kill at any call is tried in `tests/integration/broker/admin/test_purge.py`.
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_purge_is_exact_after_kills_and_never_holds_the_server_up(server: ServerUnderTest) -> None:
    count, rng = 1_000_000, random.Random(78)
    # A fork takes the main thread longer than any call, whatever the server does at the time.
    server.config_set("auto-aof-rewrite-percentage", 0)
    calls = MeasuredCalls(connect(server.url))
    family = QueueOperations(calls, Keys(prefix=PREFIX).queue(QUEUE))
    fill(QueueOperations(RedisCalls(connect(server.url)), family.keys), count)
    full = state(family)
    assert full["bodies"] == count + LEASED

    assert set_aside(family, "undone", by="an_operator") == count
    emptied = {name: LEASED if name in ("bodies", "unique", "notes", "leased") else 0 for name in full}
    assert state(family) == emptied | {"aside": 6}
    since = [Entry(f"since-{number}", BODY) for number in range(20_000)]
    family.enqueue(since)
    family.calls.call(script("claim_purge"), [family.keys.purges], ["undone", "undo"])
    for _ in range(KILLS):
        kill_in_the_middle(server, family, rng, steps=len(since) // STEP)
    began_s = time.monotonic()
    finish(family)
    undone_s = time.monotonic() - began_s
    count += len(since)
    assert state(family) == {**full, "waiting": full["waiting"] + len(since), "bodies": count + LEASED}

    assert set_aside(family, "dropped", by="an_operator", undo_ms=0) == count
    for _ in range(KILLS):
        kill_in_the_middle(server, family, rng, steps=count // 4 // STEP)
    began_s = time.monotonic()
    finish(family)
    dropped_s = time.monotonic() - began_s
    assert purges(family) == []
    assert state(family) == emptied
    assert family.enqueue([Entry("keyed-1", BODY, "key-2")]) == ["keyed-1"]
    assert family.ack(OWNER, family.held(OWNER)) == []

    figures = {name: round(max(took_ms), 2) for name, took_ms in calls.took_ms.items()}
    print(
        f"{count:,} messages: undone in {undone_s:.1f} s, dropped in {dropped_s:.1f} s, longest calls in ms: {figures}"
    )
    assert max(figures.values()) < LONGEST_MS
    every = sorted(itertools.chain.from_iterable(calls.took_ms.values()))
    assert every[-len(every) // RARE] < USUAL_MS
