"""A pool's counts reach the facts exactly, whatever child is killed, and metrics whose folder is removed come back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import urllib.request
from pathlib import Path

import pytest

from switchyard.broker.admin.browse import family_stats
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
from switchyard.workers.metrics import GAPS_FILE, gaps_of
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


COUNTED = re.compile(r'switchyard_messages_total\{actor="urgent_job",outcome="succeeded",queue="urgent"\} (\S+)')
GAPS = re.compile(r'switchyard_metrics_gaps_total\{pool="urgent"\} (\S+)')


def test_metrics_come_back_after_their_folder_or_its_files_were_removed(bench: Bench) -> None:
    bench.up("runpool", "urgent")
    folder = bench.folder / "metrics" / "urgent"

    def read(pattern: re.Pattern[str]) -> float:
        report = wait_for(lambda: bench.report("urgent"))
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/metrics", timeout=30) as answer:
            found = pattern.search(answer.read().decode())
        return float(found.group(1)) if found else 0.0

    def work() -> bool:
        token = bench.send("urgent")
        return wait_for(lambda: bench.ended(token))

    work()
    wait_for(lambda: read(COUNTED) >= 1)
    for gap, how in enumerate(("the folder", "the folder", "its files", "its files"), start=1):
        if how == "the folder":
            shutil.rmtree(folder.parent)
        else:
            for path in folder.iterdir():
                path.unlink()

        wait_for(lambda gap=gap: gaps_of(folder) == gap)
        wait_for(lambda: work() and read(COUNTED) >= 1)

        assert read(GAPS) == gap
    assert "metrics folder was removed while the pool runs" in bench.log()


def test_a_count_of_gaps_that_is_being_made_is_none_yet(tmp_path: Path) -> None:
    assert gaps_of(tmp_path) == 0
    (tmp_path / GAPS_FILE).touch()
    assert gaps_of(tmp_path) == 0
