"""One ``runpools`` with a pool of each kind: what its children are, what they do, what dies and what does not."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from subprocess import Popen

import psutil
import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.dead_lists import DeadLists
from tests.integration.workers.bench.actors import ENDED
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for

CHILDREN = {"urgent child 1", "slow child 1", "slow child 2", "webhook child 1", "retries child 1"}
SUPERVISORS = {"pool urgent", "pool slow", "pool webhook", "pool retries"}


@pytest.fixture(scope="module")
def pools(module_bench: Bench) -> Iterator[Popen]:
    process = module_bench.up("runpools")
    yield process


def test_each_pool_says_when_it_is_ready_and_its_processes_are_named_for_ps(module_bench, pools):
    log = module_bench.log()

    assert "pool urgent: ready (1 × 4 threads)" in log
    assert "pool slow: ready (2 × 1 processes)" in log
    assert "pool webhook: ready (1 × 8 gevent)" in log
    wait_for(lambda: set(titles_below(pools.pid)) == CHILDREN | SUPERVISORS | {"history"})


@pytest.mark.parametrize(
    ("queue", "patched", "nice"), [("urgent", False, 0), ("slow", False, 10), ("webhook", True, 0)]
)
def test_a_pool_of_each_kind_runs_jobs(module_bench, pools, queue, patched, nice):
    token = module_bench.send(queue)

    ended = wait_for(lambda: module_bench.ended(token))

    assert ended["patched"] is patched
    assert ended["database"] == 42
    assert ended["nice"] == min(os.nice(0) + nice, 19)
    assert ended["pid"] in {pid for title, pid in titles_below(pools.pid).items() if title.startswith(f"{queue} child")}


@pytest.mark.parametrize("queue", ["urgent", "slow", "webhook"])
def test_the_soft_limit_ends_a_task_in_every_kind_of_child(module_bench, pools, queue):
    dead = DeadLists(RedisCalls(module_bench.client), Keys())
    before = dead.count(queue)

    token = module_bench.send(queue, ms=60_000, time_limit=300)

    wait_for(lambda: dead.count(queue) == before + 1)
    assert not module_bench.ended(token)


def test_greenlets_of_one_child_wait_side_by_side(module_bench, pools):
    tokens = [module_bench.send("webhook", ms=3_000) for _ in range(8)]

    ends = [wait_for(lambda token=token: module_bench.ended(token)) for token in tokens]

    starts = [module_bench.started(token)["at"] for token in tokens]  # type: ignore[index]
    assert max(starts) < min(end["at"] for end in ends)


def test_each_child_is_a_worker_of_its_own_to_the_broker(module_bench, pools):
    tokens = [module_bench.send("slow", ms=1_500) for _ in range(4)]

    ends = [wait_for(lambda token=token: module_bench.ended(token)) for token in tokens]

    by_pid = {end["pid"]: end["owner"] for end in ends}
    assert len(by_pid) == 2
    assert len(set(by_pid.values())) == 2


def test_the_reports_tell_slots_children_and_work(module_bench, pools):
    token = module_bench.begun("slow", ms=8_000)

    report = wait_for(lambda: (found := module_bench.report("slow")) and found.busy == 1 and found)

    assert (report.kind, report.slots, report.state, report.release) == ("processes", 2, "up", "bench")
    assert [child["ready"] for child in report.children] == [True, True]
    assert all(child["rss_bytes"] > 10_000_000 for child in report.children)
    assert titles_below(pools.pid)["pool slow"] == report.pid
    wait_for(lambda: module_bench.ended(token))


def test_a_pool_serves_its_own_metrics_to_this_machine_only(module_bench, pools):
    module_bench.ran("urgent")
    report = wait_for(lambda: module_bench.report("urgent"))

    url = f"http://127.0.0.1:{report.metrics_port}"
    counted = 'switchyard_messages_total{actor="urgent_job",outcome="succeeded",queue="urgent"}'
    idle = 'switchyard_worker_slots_busy{pool="urgent"} 0.0'
    text = wait_for(lambda: (read := fetch(f"{url}/metrics")) and counted in read and idle in read and read)

    assert 'switchyard_worker_up{pool="urgent"} 1.0' in text
    assert 'switchyard_worker_slots{pool="urgent"} 4.0' in text
    assert 'switchyard_worker_memory_bytes{pool="urgent"}' in text
    assert "slow_job" not in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{url}/elsewhere")
    listening = {c.laddr.ip for c in psutil.Process(report.pid).net_connections("inet") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_promtool_has_nothing_to_say_about_a_pools_metrics(module_bench, pools):
    report = wait_for(lambda: module_bench.report("slow"))
    text = fetch(f"http://127.0.0.1:{report.metrics_port}/metrics")

    linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_after_kill_9_of_a_child_under_load_all_jobs_complete_no_other_stops(module_bench, pools):
    before = titles_below(pools.pid)
    tokens = [module_bench.send("slow", ms=20) for _ in range(150)]
    held = [module_bench.send("slow", ms=700) for _ in range(2)]
    tokens += held + [module_bench.send("slow", ms=20) for _ in range(50)]
    wait_for(lambda: any(module_bench.started(token) for token in held))
    victim = next(note["pid"] for token in held if (note := module_bench.started(token)))

    killed_at = time.time()
    os.kill(victim, signal.SIGKILL)

    wait_for(lambda: set(tokens) <= {note["token"] for note in module_bench.notes(ENDED)})
    after = titles_below(pools.pid)
    [killed] = [title for title, pid in before.items() if pid == victim]
    assert set(after) == set(before)
    assert [title for title in after if after[title] != before[title]] == [killed]
    sibling = before[{"slow child 1": "slow child 2", "slow child 2": "slow child 1"}[killed]]
    ends = [note["at"] for note in module_bench.notes(ENDED) if note["pid"] == sibling]
    assert any(killed_at < at < killed_at + 8 for at in ends)
    report = wait_for(lambda: (found := module_bench.report("slow")) and found.restarts and found)
    assert report.restarts == {"SIGKILL": 1}


def test_a_dead_supervisor_is_started_again_and_the_other_pools_go_on(module_bench, pools):
    before = titles_below(pools.pid)

    os.kill(before["pool webhook"], signal.SIGKILL)

    module_bench.wait_for_log("its supervisor (pid")
    module_bench.ran("webhook")
    after = titles_below(pools.pid)
    assert {title for title in before if after.get(title) != before[title]} == {"pool webhook", "webhook child 1"}


def test_all_pools_load_django_once(pools):
    members = [pools.pid, *titles_below(pools.pid).values()]

    megabytes = sum(psutil.Process(pid).memory_full_info().pss for pid in members) / 1e6

    assert megabytes < 350


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body.decode()
