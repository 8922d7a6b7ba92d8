"""Jobs that are cancelled in real pools: queued and retrying ones never start, running ones end, neighbours go on."""

import os
import re
import signal
import subprocess
import time
import urllib.request
import uuid
from collections import Counter
from math import inf
from typing import Any

import pytest
from dramatiq import Message

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.broker.stores.job_records import Job
from switchyard.wiring import build_yard
from tests.integration.workers.bench.actors import STARTED
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for

# Promised in docs/reliability.md. By design 0.25 s until it is seen, 0.3 s for the task to stop by itself (a greenlet
# that computes: 0.4 s, and 0.25 s until the next look), and up to 0.1 s until this test looks.
long = pytest.mark.long
PROMISED_S = 1.0


class Jobs:
    """Jobs of a bench, each with its record."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.broker = build_yard(YARD, bench.client, Keys())
        self.facilities: Facilities = facilities(bench.broker)
        self._earlier = set(bench.ids)

    def record(self, token: str) -> Job:
        found = self.facilities.records.read(self.bench.ids[token])
        assert found is not None
        return found

    def starts(self, token: str) -> list[dict[str, Any]]:
        return [note for note in self.bench.notes(STARTED) if note["token"] == token]

    def running(self, queue: str, how: str = "sleep", ms: int = 60_000) -> str:
        """Return a job that runs. Its record may say so later: a task that gives way to nothing keeps it from that."""
        token = self.bench.send(queue, ms=ms, how=how)
        wait_for(lambda: self.starts(token))
        return token

    def scheduled(self, queue: str, *, delay_ms: int) -> str:
        token = uuid.uuid4().hex
        message: Message[Any] = Message(queue, f"{queue}_job", (token, 0), {}, {})
        self.bench.ids[token] = message.message_id
        self.bench.broker.enqueue(message, delay=delay_ms)
        return token

    def cancel(self, token: str) -> str:
        return cancel(self.facilities, self.bench.ids[token])

    def cancelled_after_s(self, token: str) -> float:
        """Cancel a job that runs, and return after how many seconds it had ended."""
        asked_s = time.monotonic()
        assert self.cancel(token) == "asked"
        wait_for(lambda: self.record(token).ended)
        took_s = time.monotonic() - asked_s
        assert self.record(token).state == "cancelled"
        return took_s

    def replaced(self, pool: str) -> Counter[str]:
        return Counter(wait_for(lambda: self.bench.report(pool)).restarts)

    def cancelled(self, pool: str) -> float:
        """Return how many cancelled jobs a pool counted."""
        port = wait_for(lambda: self.bench.report(pool)).metrics_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = str(answer.read(), "utf-8")
        found = re.search(rf'actor="{pool}_job",outcome="cancelled",queue="{pool}"}} (\S+)', text)
        return float(found[1]) if found else 0.0

    def assert_forgotten(self, token: str, queue: str) -> None:
        """Check that a job never starts again, and that no crash of this test's jobs was counted."""
        family = self.bench.broker.families[queue]
        wait_for(lambda: not family.calls.command("HEXISTS", family.keys.bodies, self.bench.ids[token]))
        assert len(self.starts(token)) == 1
        assert DeadLists(RedisCalls(self.bench.client), Keys()).page(queue, cursor=0, limit=1).items == []
        own = [id_.encode() for token, id_ in self.bench.ids.items() if token not in self._earlier]
        notes = [note for note in family.calls.command("HKEYS", family.keys.notes) if note.startswith(b"crash:")]
        assert [note for note in notes if any(id_ in note for id_ in own)] == []


@pytest.fixture(scope="module")
def pools(module_bench: Bench) -> subprocess.Popen[bytes]:
    return module_bench.up("runpools", "urgent", "slow", "webhook", "--no-history")


@pytest.fixture
def jobs(module_bench: Bench, pools: subprocess.Popen[bytes]) -> Jobs:
    return Jobs(module_bench)


@pytest.mark.parametrize("within_s", [inf, pytest.param(PROMISED_S, marks=long)])
@pytest.mark.parametrize(
    ("queue", "how"),
    [
        ("urgent", "spin"),
        ("slow", "defy"),
        ("webhook", "spin"),
        pytest.param("webhook", "sleep", marks=long),
        pytest.param("urgent", "sleep", marks=long),
        pytest.param("urgent", "defy", marks=long),
        pytest.param("slow", "sleep", marks=long),
        pytest.param("slow", "spin", marks=long),
        pytest.param("webhook", "defy", marks=long),
    ],
)
def test_a_task_in_python_ends_soon_and_its_neighbours_go_on(jobs, queue, how, within_s):
    neighbour = jobs.running(queue, ms=3_000)
    token = jobs.running(queue, how)

    took_s = jobs.cancelled_after_s(token)

    print(f"{queue}, {how}: ended {took_s:.3f} s after it was cancelled")
    assert took_s < within_s
    wait_for(lambda: jobs.record(neighbour).ended)
    assert jobs.record(neighbour).state == "succeeded"
    assert len(jobs.starts(neighbour)) == 1
    jobs.assert_forgotten(token, queue)


# The first is promised. Without its supervisor, the lease of a neighbour has 11 s to go at least.
@pytest.mark.parametrize(("within_s", "again_within_s"), [(inf, inf), pytest.param(10.0, 4.0, marks=long)])
@pytest.mark.parametrize(
    ("queue", "how"),
    [
        ("slow", "hang"),
        ("webhook", "seize"),
        pytest.param("urgent", "hang", marks=long),
        pytest.param("urgent", "seize", marks=long),
        pytest.param("slow", "refuse", marks=long),
    ],
)
def test_a_task_that_does_not_return_is_killed_within_10_s_and_its_neighbours_start_again_at_once(
    jobs, pools, queue, how, within_s, again_within_s
):
    before = jobs.replaced(queue), jobs.cancelled(queue)
    neighbours = [] if queue == "slow" else [jobs.running(queue) for _ in range(2)]
    token = jobs.running(queue, how)

    took_s = jobs.cancelled_after_s(token)

    ended_s = time.time()
    print(f"{queue}, {how}: ended {took_s:.3f} s after it was cancelled")
    assert took_s < within_s
    for neighbour in neighbours:
        wait_for(lambda neighbour=neighbour: len(jobs.starts(neighbour)) == 2)
        again_s = jobs.starts(neighbour)[1]["at"] - ended_s
        print(f"a neighbour started again {again_s:.3f} s later")
        assert again_s < again_within_s, "without its supervisor, its lease expires after 15 s"
        wait_for(lambda neighbour=neighbour: jobs.record(neighbour).state == "running")
        assert jobs.record(neighbour).attempts == 1
    jobs.assert_forgotten(token, queue)
    assert pools.poll() is None
    wait_for(lambda: jobs.replaced(queue) - before[0] == Counter(cancelled=1))
    wait_for(lambda: jobs.cancelled(queue) == before[1] + 1)
    for neighbour in neighbours:
        jobs.cancelled_after_s(neighbour)


@pytest.mark.long
def test_c_code_that_a_signal_wakes_ends_in_a_gevent_pool_without_its_child(jobs):
    neighbour = jobs.running("webhook", ms=3_000)
    token = jobs.running("webhook", "hold")

    jobs.cancelled_after_s(token)

    wait_for(lambda: jobs.record(neighbour).ended)
    assert len(jobs.starts(neighbour)) == 1


def test_a_killed_child_reruns_its_tasks_but_for_the_one_that_was_asked_to_stop(jobs):
    neighbour = jobs.running("urgent", ms=8_000)
    token = jobs.running("urgent", "refuse")
    assert jobs.cancel(token) == "asked"
    jobs.bench.wait_for_log("CancelInterrupt")

    os.kill(jobs.starts(token)[0]["pid"], signal.SIGKILL)

    wait_for(lambda: jobs.record(token).state == "cancelled")
    wait_for(lambda: jobs.record(neighbour).state == "succeeded")
    assert len(jobs.starts(neighbour)) == 2
    jobs.assert_forgotten(token, "urgent")


@pytest.mark.parametrize("queue", ["urgent", pytest.param("webhook", marks=long)])
def test_what_runs_alone_ends_as_well(jobs, queue):
    token = jobs.running(queue, "spin")
    os.kill(jobs.starts(token)[0]["pid"], signal.SIGKILL)
    wait_for(lambda: len(jobs.starts(token)) == 2)
    assert jobs.starts(token)[1]["owner"].endswith("/alone")

    jobs.cancelled_after_s(token)

    assert len(jobs.starts(token)) == 2


def test_what_waits_is_scheduled_or_is_to_be_retried_never_starts(jobs):
    failed = jobs.bench.send("urgent", how="fail")
    wait_for(lambda: jobs.record(failed).state == "retrying")
    for _ in range(4):
        jobs.running("urgent", ms=8_000)
    queued = jobs.bench.send("urgent")
    scheduled = jobs.scheduled("urgent", delay_ms=6_000)

    assert [jobs.cancel(token) for token in (failed, queued, scheduled)] == ["cancelled"] * 3
    assert {jobs.record(token).state for token in (failed, queued, scheduled)} == {"cancelled"}
    jobs.bench.start("runpool", "retries", log="retries")
    marks = [jobs.bench.send("urgent", how="fail"), jobs.scheduled("urgent", delay_ms=6_000)]
    wait_for(lambda: [len(jobs.starts(mark)) for mark in marks] == [2, 1])
    assert [len(jobs.starts(token)) for token in (failed, queued, scheduled)] == [1, 0, 0]
    for token in (failed, queued, scheduled):
        family = jobs.bench.broker.families["urgent"]
        assert not family.calls.command("HEXISTS", family.keys.bodies, jobs.bench.ids[token])


def test_what_a_worker_has_in_stock_does_not_start(jobs):
    running = [jobs.running("webhook", ms=8_000) for _ in range(8)]
    stocked = [jobs.bench.send("webhook") for _ in range(3)]
    family = jobs.bench.broker.families["webhook"]
    wait_for(lambda: sum(len(family.held(owner)) for owner in family.owners()) == 11)

    assert {jobs.cancel(token) for token in stocked} == {"asked"}

    wait_for(lambda: all(jobs.record(token).ended for token in (*running, *stocked)))
    assert {jobs.record(token).state for token in running} == {"succeeded"}
    assert [len(jobs.starts(token)) for token in stocked] == [0, 0, 0]
    assert {jobs.record(token).state for token in stocked} == {"cancelled"}
