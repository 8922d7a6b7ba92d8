"""Pools on one machine: nine in little memory, their parents, CPUs and files, each kind of actor, other commands."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from dramatiq import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.wiring import build_yard
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import BENCH, ROOT, Bench
from tests.integration.workers.kinds import DONE
from tests.processes import is_alive, titles_below
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

MOST_BYTES = 400_000_000


@pytest.mark.long
def test_nine_pools_take_less_than_400_mb(bench):
    parent = bench.up("runpools", "--no-history", settings="nine_settings")
    members = [parent.pid, *titles_below(parent.pid).values()]
    used_bytes = sum(psutil.Process(pid).memory_full_info().pss for pid in members)

    parent.send_signal(signal.SIGTERM)

    assert (parent.wait(60), len(members)) == (0, 21)
    assert used_bytes < MOST_BYTES


def test_gevent_pools_share_a_parent_that_is_started_again_when_it_dies(bench):
    parent = bench.up("runpools", "webhook", "webhook-retry", "--no-history", settings="nine_settings")
    before = titles_below(parent.pid)
    assert set(before) == {
        "greenlet pools", "pool webhook", "pool webhook-retry", "webhook child 1", "webhook-retry child 1",
    }  # fmt: skip

    os.kill(before["greenlet pools"], signal.SIGKILL)

    wait_for(lambda: not any(is_alive(pid) for pid in before.values()))
    bench.wait_for_log("pool webhook, webhook-retry: its parent (pid")
    wait_for(lambda: set(titles_below(parent.pid)) == set(before))
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0


@pytest.mark.parametrize(
    "stopped",
    ["greenlet pools", *(pytest.param(name, marks=pytest.mark.long) for name in ("pool urgent", "pool webhook"))],
)
def test_a_supervisor_that_is_stopped_is_replaced_with_its_children(bench, stopped):
    parent = bench.up("runpools", "urgent", "webhook", "webhook-retry", "--no-history", settings="hung_settings")
    before = titles_below(parent.pid)

    os.kill(before[stopped], signal.SIGSTOP)

    bench.wait_for_log("; it is started again")
    wait_for(lambda: (now := titles_below(parent.pid)).keys() == before.keys() and now[stopped] != before[stopped])
    assert not is_alive(before[stopped])
    assert (titles_below(parent.pid)["pool urgent"] == before["pool urgent"]) is (stopped != "pool urgent")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0


def test_every_thread_of_a_pinned_child_runs_on_its_cpus_and_nobody_else_does(bench):
    ours = os.sched_getaffinity(0)
    parent = bench.up("runpools", yard="pinned")

    titles = titles_below(parent.pid)

    pinned = [pid for title, pid in titles.items() if "child" in title and not title.startswith("retries")]
    assert len(pinned) == 4
    assert {frozenset(cpus) for pid in pinned for cpus in threads_cpus(pid)} == {frozenset({max(ours)})}
    others = {parent.pid, *titles.values()} - set(pinned)
    assert {frozenset(cpus) for pid in others for cpus in threads_cpus(pid)} == {frozenset(ours)}


def threads_cpus(pid: int) -> list[set[int]]:
    """Return the CPUs on which each thread of a process may run."""
    return [os.sched_getaffinity(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()]


PAGE = "docs/how-to/choose-a-pool.md"


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench):
    [shown] = code_blocks(read(PAGE), "sh")
    assert shown.split()[:2] == ["bin/bench", "plateau"]

    command = bench.start_module(
        "benchmarks", "plateau", "urgent_job", '["measured", 20]', "--tasks", "10", "--most", "2"
    )

    assert command.wait(120) == 0, bench.log()
    rows = [line.split() for line in bench.log().splitlines() if " tasks/s " in line]
    assert [(row[0], row[-1]) for row in rows] == [("1", "0"), ("2", "0")]
    assert "plateau: urgent_job gains up to " in bench.log()


POOLS = ("urgent", "slow", "retries")


def send(bench: Bench, queue: str, actor: str, *args: Any, **options: Any) -> str:
    """Enqueue a message, as a sender without the actors does."""
    message: Message[Any] = Message(queue, actor, args, {}, options)
    return bench.broker.enqueue(message).message_id


def done(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(note) for note in bench.client.lrange(DONE, 0, -1)]  # type: ignore[union-attr]


def test_each_kind_of_actor_runs_in_both_pools_its_callbacks_follow_a_coroutine_is_interrupted(bench):
    pools = bench.up("runpools", *POOLS, apps=f"{BENCH} tests.integration.workers.kinds")
    word = {"urgent": "Hi", "slow": "Good evening"}

    for queue in ("urgent", "slow"):
        generic = f"{queue.title()}Greeting"
        for name in ("Ann", ""):
            send(bench, queue, generic, name)
            send(bench, queue, f"{queue}_fetch", name)
    wait_for(lambda: len(done(bench)) == 12)

    notes = done(bench)
    for queue in ("urgent", "slow"):
        generic, fetch = f"{queue.title()}Greeting", f"{queue}_fetch"
        assert {"of": generic, "result": f"{word[queue]} Ann"} in notes
        assert {"of": generic, "error": "ValueError"} in notes and {"of": fetch, "result": "Ann"} in notes
        assert {"of": fetch, "error": "ValueError"} in notes
        assert notes.count({"runs": fetch, "loop": True}) == 2

    send(bench, "urgent", "urgent_fetch", "limited", 60_000, time_limit=300)
    wait_for(lambda: {"interrupted": "limited"} in done(bench))
    send(bench, "slow", "slow_fetch", "stopped", 60_000, notify_shutdown=True)
    wait_for(lambda: done(bench).count({"runs": "slow_fetch", "loop": True}) == 3)
    pools.terminate()

    assert pools.wait(60) == 0
    assert {"interrupted": "stopped"} in done(bench)


def test_a_task_in_a_greenlet_runs_no_event_loop_that_others_would_be_inside_of(bench):
    bench.up("runpools", "webhook", "retries", "--no-history")
    loops = [bench.send("webhook", ms=1_500, how=how) for how in ("loop", "loop_elsewhere")]
    wait_for(lambda: all(map(bench.started, loops)))

    others = [bench.send("webhook") for _ in range(5)]

    wait_for(lambda: all(map(bench.ended, (*others, loops[1]))))
    assert "SynchronousOnlyOperation" not in bench.log()
    [dead] = [line for line in bench.log().splitlines() if "] dead " in line]
    assert f"job_id={bench.ids[loops[0]]}" in dead and "reason=permanent" in dead
    assert "threadpool.apply(asyncio.run" in bench.log()


LETTER = DeadLetter(
    id="0a52e5b6-2e5c-4b1e-9b39-2d0f6a1f3c11",
    queue="webhook",
    actor="webhook_job",
    message={
        "queue_name": "webhook", "actor_name": "webhook_job", "args": ["given up", 0], "kwargs": {}, "options": {},
        "message_id": "0a52e5b6-2e5c-4b1e-9b39-2d0f6a1f3c11", "message_timestamp": 1_795_000_000_000,
    },
    reason="exhausted",
    exception="Unreachable",
    error="no answer",
    traceback="",
    attempts=6,
    enqueued_at=1_795_000_000_000,
    died_at=1_795_000_060_000,
    duration_ms=12,
    fingerprint="f" * 16,
)  # fmt: skip


def test_rundramatiq_serves_the_live_queues_and_leaves_webhook_dead_untouched(bench):
    dead = DeadLists(RedisCalls(bench.client), Keys())
    dead.add(LETTER)

    bench.start("rundramatiq", "--processes", "1", "--threads", "2", "--path", str(ROOT))
    tokens = [bench.send(queue) for queue in ("webhook", "urgent", "slow")]

    for token in tokens:
        wait_for(lambda token=token: bench.ended(token))
    assert (dead.get("webhook", LETTER.id), dead.count("webhook")) == (LETTER, 1)
    assert not [note for note in bench.notes("bench:started") if note["token"] == "given up"]


def test_a_task_that_asks_ends_at_once_and_waits_for_another_worker(bench):
    queues = ("urgent", "webhook", "slow")
    pools = bench.up("runpools", *queues, "--no-history", "--grace", "20")
    told = {queue: bench.send(queue, ms=60_000, notify_shutdown=True, max_retries=0) for queue in queues}
    neighbours = [bench.send(queue, ms=1_500) for queue in queues]
    wait_for(lambda: all(bench.started(token) for token in (*told.values(), *neighbours)))

    pools.terminate()

    assert pools.wait(30) == 0
    records = facilities(build_yard(YARD, bench.client, Keys())).records
    for queue, token in told.items():
        record = records.read(bench.ids[token])
        assert record is not None
        found = (record.state, record.attempts, record.error and record.error["type"])
        assert found == ("retrying", 1, "Shutdown"), queue
        assert not bench.ended(token)
    assert all(bench.ended(token) for token in neighbours), "only a task that asks is interrupted"


# Forked processes inherit what their parent has loaded. "exec" is raised for the code of each module.
NOTES_WHAT_IT_LOADS = """
import os, sys
loaded = set()
def note(event, arguments):
    if event == "exec" and getattr(arguments[0], "co_name", "") == "<module>":
        file = os.path.realpath(arguments[0].co_filename)
        if file.startswith({root!r}) and file.endswith(".py"):
            with open({notes!r} + ("twice" if file in loaded else "once"), "a") as notes:
                notes.write(f"{{os.getpid()}} {{file}}\\n")
            loaded.add(file)
sys.addaudithook(note)
"""
OURS = ("apps", "middleware", "switchyard")


def test_no_process_of_a_yard_loads_a_file_under_two_names(bench, tmp_path):
    hook = tmp_path / "hook"
    hook.mkdir()
    notes = f"{tmp_path}/loaded-"
    (hook / "sitecustomize.py").write_text(NOTES_WHAT_IT_LOADS.format(root=f"{ROOT}/", notes=notes))
    bench.environment["PYTHONPATH"] = str(hook)

    parent = bench.up("runpools")
    tokens = [bench.send(queue) for queue in ("urgent", "slow", "webhook")]
    children = {wait_for(lambda token=token: bench.ended(token))["pid"] for token in tokens}
    parent.terminate()
    assert parent.wait(60) == 0
    web = {**bench.environment, "DJANGO_SETTINGS_MODULE": "project.settings"}
    subprocess.run([sys.executable, "-c", "import project.asgi"], cwd=ROOT, env=web, check=True, timeout=60)

    once = [line.split() for line in Path(f"{notes}once").read_text().splitlines()]
    files = {Path(file).relative_to(ROOT).parts[0] for _, file in once}
    assert files.issuperset(OURS)
    assert len(children) == 3
    assert {int(pid) for pid, _ in once} >= {parent.pid}
    assert not Path(f"{notes}twice").exists(), Path(f"{notes}twice").read_text()
