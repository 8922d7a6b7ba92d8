"""Children that are replaced because they did enough or hold too much."""

from __future__ import annotations

import time

import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.yard_facts import GROWN_BYTES, FactStore, merged
from switchyard.workers.shared.fork import resident_bytes
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.bench.yard import ABOVE_BYTES
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for

MB = 1_000_000
ALL_ENDED_S = 80.0  # on a busy machine; they take 4 s


def test_children_are_replaced_by_count_and_nothing_runs_twice_or_waits(bench: Bench) -> None:
    pool = bench.up("runpool", "urgent", yard="aging")

    tokens = [bench.send("urgent", ms=10) for _ in range(800)]
    most, give_up_s = 0, time.monotonic() + ALL_ENDED_S
    while (count := bench.client.llen(ENDED)) < 800:
        most = max(most, len(titles_below(pool.pid)))
        # A task that failed once would stay in the retry lane, which no pool of this test serves.
        assert time.monotonic() < give_up_s, f"{count} ended; {bench.unusual_log()}"

    ends = bench.notes(ENDED)
    assert sorted(note["token"] for note in ends) == sorted(tokens)
    pids = [note["pid"] for note in ends]
    assert len(set(pids)) >= 3
    assert most <= 3
    report = wait_for(lambda: (found := bench.report("urgent")) and found.restarts and found)
    assert set(report.restarts) == {"recycled"}


def test_a_child_that_holds_too_much_is_replaced_and_what_it_runs_ends_in_peace(bench: Bench) -> None:
    pool = bench.up("runpool", "urgent", "--grace", "0.2", yard="growing")
    child = titles_below(pool.pid)["urgent child 1"]
    heaviest = resident_bytes(child)
    long = bench.begun("urgent", ms=12_000)
    tokens = [long]

    while len(titles_below(pool.pid)) < 2:
        assert heaviest < ABOVE_BYTES + 150 * MB, "it is not replaced"
        tokens.append(bench.send("urgent", ms=30, how="leak"))  # it is weighed ten times a second
        wait_for(lambda: bench.ended(tokens[-1]))
        heaviest = max(heaviest, resident_bytes(child))
    assert not bench.ended(long)
    bench.wait_for_log(f"(pid {child}) is replaced")
    last = bench.send("urgent")

    ended = wait_for(lambda: bench.ended(last))
    print(f"replaced with {heaviest / MB:.0f} MB, above {ABOVE_BYTES / MB:.0f}, after {len(tokens)} tasks")
    assert heaviest > ABOVE_BYTES
    assert bench.ended(long)["pid"] == child  # type: ignore[index]
    assert ended["pid"] != child
    assert sorted(note["token"] for note in bench.notes(STARTED)) == sorted([*tokens, last])
    assert sorted(note["token"] for note in bench.notes(ENDED)) == sorted([*tokens, last])
    report = wait_for(lambda: (found := bench.report("urgent")) and found.restarts and found)
    assert report.restarts == {"recycled_memory": 1}
    pool.terminate()
    assert pool.wait(60) == 0
    store = FactStore(RedisCalls(bench.client), Keys())
    found = merged(of.get("a:urgent_job", {}) for _, of in store.recent(store.server_ms()))
    assert found[GROWN_BYTES] >= len(tokens) // 2 * MB, "what it grew by is put down to its actor"


@pytest.mark.long
def test_a_drain_gives_a_child_that_is_replaced_its_grace_and_no_more(bench: Bench) -> None:
    pool = bench.up("runpool", "urgent", "--grace", "0.2", yard="aging")
    bench.begun("urgent", ms=60_000)
    children = set(titles_below(pool.pid))
    for _ in range(200):
        bench.send("urgent", ms=5)
    wait_for(lambda: bench.client.llen(ENDED) == 200)
    wait_for(lambda: set(titles_below(pool.pid)) - children)

    pool.terminate()

    assert pool.wait(30) == 0
    assert bench.waiting("urgent") == 1
