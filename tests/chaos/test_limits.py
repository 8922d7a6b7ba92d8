"""Limits on what runs at once, under kills: never one too many, none stuck, and sequences kept."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.linked_jobs import AT_ONCE, declare_limited_jobs, first_starts, most_at_once
from tests.chaos.load import QUEUE, wait_until_drained
from tests.chaos.server import ServerUnderTest, server_binary
from tests.chaos.test_killed_processes import workers
from tests.processes import is_alive
from tests.sentinels import Watched
from tests.waiting import wait_for

long = pytest.mark.long


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("keys", "jobs", "kills", "supervisors"),
    [(3, 90, 2, 0), pytest.param(5, 400, 10, 1, marks=long), pytest.param(2_000, 10_000, 10, 1, marks=long)],
)
def test_no_kill_leaves_a_place_taken_or_gives_one_too_many(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, keys: int, jobs: int, kills: int, supervisors: int
) -> None:
    pools = pools_on("threads", valkey_url)
    actors = declare_limited_jobs(pools.broker, ledger)
    pool = pools.start("runpool", "work")
    chosen, died_s = random.Random(5), dict[int, float]()
    sent = []
    for number in range(jobs):
        key, kind = f"k{number % keys}", actors.limited
        if number % 3 == 0:
            key, kind = f"o{number % keys}", actors.ordered
        ledger.note("accepted", f"{key}.{number}")
        sent.append(kind.message(key, f"{key}.{number}", 20))
    pools.broker.enqueue_many(sent)
    began_s = time.monotonic()

    def ended() -> int:
        return len(ledger.jobs("completed"))

    def is_dead(pid: int) -> bool:
        return not is_alive(pid)

    for number in range(1, kills + 1):
        wait_for(lambda due=number: ended() >= jobs * due // (kills + 2))  # type: ignore[misc]
        victim = chosen.choice(sorted(wait_for(lambda: workers(pool) - set(died_s))))
        died_s[victim] = time.monotonic()
        os.kill(victim, signal.SIGKILL)
    for _ in range(supervisors):
        wait_for(lambda: ended() >= jobs * (kills + 1) // (kills + 2))
        below = list(pool.children().values())
        pool.process.kill()
        for pid in below:
            wait_for(partial(is_dead, pid))
        died_s.update(dict.fromkeys(below, time.monotonic()))
        pool = pools.start("runpool", "work")
    wait_until_drained(pools.broker, 300)

    most, found = most_at_once(ledger, died_s), ledger.account()
    print(f"{jobs} jobs of {keys} keys in {time.monotonic() - began_s:.1f} s, at most {most.most_common(3)} at once")
    assert found.lost == ()
    assert max(most.values()) <= AT_ONCE
    assert max(count for key, count in most.items() if key.startswith("o")) == 1
    for key in most:
        assert not key.startswith("o") or first_starts(ledger, key) == sorted(first_starts(ledger, key))
    family = pools.broker.lane(QUEUE)[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)


Lossy = tuple[str, Callable[[], object]]


@pytest.fixture(params=["killed, its file synced each second", "replaced by a sentinel"])
def lossy(request: pytest.FixtureRequest, tmp_path: Path, server_name: str) -> Iterator[Lossy]:
    """The address of a server, and an act after which it may have forgotten its last writes."""
    if request.param.startswith("killed"):
        with ServerUnderTest(tmp_path / "server", server_binary(server_name)) as server:
            server.config_set("appendfsync", "everysec")
            yield server.url, server.restart
    else:
        with Watched(tmp_path / "sentinels", server_binary(server_name), down_ms=4_000) as servers:

            def fail_over() -> None:
                former = servers.master
                former.kill()
                wait_for(lambda: servers.master is not former)
                former.restart()
                servers.wait_until_settled()

            yield servers.url, fail_over


@long
@pytest.mark.timeout(900)
def test_a_server_that_forgets_its_last_writes_leaves_no_place_taken(
    pools_on: PoolsOn, lossy: Lossy, ledger: Ledger
) -> None:
    url, forget = lossy
    pools = pools_on("threads", url)
    limited = declare_limited_jobs(pools.broker, ledger).limited
    pools.start("runpool", "work")
    sent = []
    for number in range(900):
        ledger.note("accepted", f"k{number % 30}.{number}")
        sent.append(limited.message(f"k{number % 30}", f"k{number % 30}.{number}", 50))
    pools.broker.enqueue_many(sent)

    for number in range(1, 4):
        wait_for(lambda due=number: len(ledger.jobs("completed")) >= 200 * due)  # type: ignore[misc]
        forget()
    wait_until_drained(pools.broker, 300)

    most, found = most_at_once(ledger, {}), ledger.account()
    over = {key: count for key, count in most.items() if count > AT_ONCE}
    print(f"900 jobs of 30 keys: {len(found.lost)} lost, {len(found.duplicated)} ran twice, over their limit: {over}")
    family = pools.broker.lane(QUEUE)[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)
    assert found.lost == ()
