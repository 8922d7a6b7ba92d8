"""A pool's counts reach the facts exactly, also those of children that were killed."""

from __future__ import annotations

import os
import signal

import pytest

from switchyard.broker.admin.stats import family_stats
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import (
    LOG_BYTES,
    PROCESSOR_MS,
    RETRIED,
    RUN_MS,
    RUNS,
    SQL_MS,
    SUCCEEDED,
    FactStore,
    percentile_ms,
    starts,
)
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for

JOBS = 40


def held(bench: Bench, queue: str) -> int:
    return family_stats(RedisCalls(bench.client), Keys().queue(queue)).live.running


@pytest.mark.parametrize("kind", ["slow", "webhook"])
def test_each_attempt_is_counted_once_whatever_child_is_killed(bench: Bench, kind: str) -> None:
    store = FactStore(RedisCalls(bench.client), Keys())
    supervisor = bench.up("runpool", kind)
    report = wait_for(lambda: bench.report(kind))

    first = [bench.send(kind, 10) for _ in range(JOBS)]
    wait_for(lambda: all(bench.ended(token) for token in first) and not held(bench, kind))
    os.kill(report.children[0]["pid"], signal.SIGKILL)
    second = [bench.send(kind, 10, how) for how in ("spin", "query") for _ in range(JOBS // 2)]
    wait_for(lambda: all(bench.ended(token) for token in second))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0, bench.log()

    found = store.recent(store.server_ms())
    totals = {
        name: yard_facts.merged(of.get(name, {}) for _, of in found)
        for name in (f"a:{kind}_job", f"q:{kind}", f"p:{kind}", "r:bench")
    }
    for name, counts in totals.items():
        assert counts[SUCCEEDED] == starts(counts) == 2 * JOBS, name
        assert RETRIED not in counts
        assert (percentile_ms(counts, RUNS, 0.5) or 0) >= 5
        if not name.startswith("a:"):
            assert SQL_MS not in counts, "told of actors alone"
            continue
        assert counts[LOG_BYTES] >= 2 * JOBS * len('{"job_id": "", "event": "succeeded"}')
        assert 0 < counts[SQL_MS] < counts[RUN_MS], "some ask the database for a while"
        # Greenlets share a thread: its time is of none alone.
        assert 0 <= counts.get(PROCESSOR_MS, 0) <= (counts[RUN_MS] if kind == "slow" else 0)
        assert kind == "webhook" or counts[PROCESSOR_MS] > JOBS, "they compute"
