"""Pools on one machine: nine in little memory, each kind of actor, what an operator or changed code does to them."""

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
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from switchyard.wiring import build_yard
from tests.factories.commands import json_of
from tests.factories.letters import letter
from tests.integration.workers.bench.actors import FANNED_OUT, STARTED, fan_out
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import BENCH, ROOT, Bench
from tests.integration.workers.kinds import DONE
from tests.integration.workers.test_cancelling import Jobs
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


CHOOSING = "docs/how-to/choose-a-pool.md"


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench):
    [shown] = code_blocks(read(CHOOSING), "sh")
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


def test_rundramatiq_serves_the_live_queues_and_leaves_webhook_dead_untouched(bench):
    dead, given_up = DeadLists(RedisCalls(bench.client), Keys()), letter(queue="webhook", actor="webhook_job")
    given_up.message.update(args=["given up", 0], kwargs={})
    dead.add(given_up)

    bench.start("rundramatiq", "--processes", "1", "--threads", "2", "--path", str(ROOT))
    tokens = [bench.send(queue) for queue in ("webhook", "urgent", "slow")]

    for token in tokens:
        wait_for(lambda token=token: bench.ended(token))
    assert (dead.get("webhook", given_up.id), dead.count("webhook")) == (given_up, 1)
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
    assert {Path(file).relative_to(ROOT).parts[0] for _, file in once}.issuperset(OURS)
    assert len(children) == 3
    assert {int(pid) for pid, _ in once} >= {parent.pid}
    assert not Path(f"{notes}twice").exists(), Path(f"{notes}twice").read_text()


def instruct(bench: Bench, verb: str, pool: str) -> str:
    """Run the command, which returns once the supervisors have obeyed, and return what it prints."""
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "workers", verb, "--pool", pool, "--reason", "a test"],
        cwd=bench.folder, env=bench.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_quieted_pool_ends_what_runs_takes_nothing_and_goes_on_when_it_may(bench):
    parent = bench.up("runpools", "slow")
    running = bench.begun("slow", ms=4_000)
    first = bench.report("slow")

    said = instruct(bench, "quiet", "slow")
    late = [bench.send("slow") for _ in range(5)]
    wait_for(lambda: bench.ended(running))

    assert first is not None and said == f"{first.member}: takes no new work\n"
    report = wait_for(lambda: (found := bench.report("slow")) and not found.busy and found)
    assert (report.state, report.started_at) == ("quieted", first.started_at)
    assert all(child["quiet"] for child in report.children)
    assert not any(bench.started(token) for token in late) and bench.waiting("slow") == 5

    instruct(bench, "resume", "slow")
    wait_for(lambda: all(bench.ended(token) for token in late))

    said = instruct(bench, "stop", "slow")
    assert "stops" in said
    again = wait_for(lambda: (found := bench.report("slow")) and found.state == "up" and found)
    assert again.started_at > first.started_at, "its parent starts it again, once"
    late = [bench.send("slow")]
    wait_for(lambda: bench.ended(late[0]))
    assert bench.report("slow").started_at == again.started_at
    parent.terminate()
    assert parent.wait(60) == 0


def cancel() -> int:
    number = json_of("jobs", "cancel", "--filter", "actor=fan_out")["bulk_act"]
    BulkRunner().go_on()
    act = BulkAct.objects.get(pk=number)
    assert (act.state, act.error) == ("done", "")
    return act.done


@pytest.mark.django_db(transaction=True)
def test_a_pause_and_a_cancel_end_it_also_in_a_child_that_hangs(bench, facilities):
    bench.up("runpool", "urgent")
    family = bench.broker.families["urgent"]
    for hangs in (False, True):
        bench.client.delete(FANNED_OUT)
        fan_out.send()  # this process knows it as well
        wait_for(lambda: bench.waiting("urgent") > 100)
        child = int(bench.client.lindex(FANNED_OUT, 0))  # type: ignore[arg-type]
        if hangs:
            os.kill(child, signal.SIGSTOP)

        json_of("actors", "pause", "fan_out", "--reason", "it sends itself")
        hit = cancel()
        if hangs:
            os.kill(child, signal.SIGCONT)
        else:  # the others of the queue go on
            bench.ran("urgent")
        wait_for(lambda: facilities.transport.stats("urgent").live.running == 0)
        ran = bench.client.llen(FANNED_OUT)
        again = cancel()  # what ran meanwhile has sent
        json_of("actors", "resume", "fan_out")
        bench.ran("urgent")

        wait_for(lambda: family.calls.command("HLEN", family.keys.bodies) == 0)
        assert bench.client.llen(FANNED_OUT) == ran
        assert hit > 100 and again <= 8
        assert json_of("actors", "show", "fan_out")["pauses"] == []


@pytest.mark.long
def test_a_greenlet_that_computes_ends_in_pools_that_share_a_parent(bench):
    jobs = Jobs(bench)
    bench.start("runpools", "webhook", "retries", yard="two gevent")
    bench.wait_for_log("pool webhook: ready")
    neighbour = jobs.running("webhook", ms=3_000)
    token = jobs.running("webhook", "spin")

    jobs.cancelled_after_s(token)

    wait_for(lambda: jobs.record(neighbour).ended)
    assert len(jobs.starts(neighbour)) == 1
    jobs.assert_forgotten(token, "webhook")


PAGE = "docs/how-to/develop-with-workers.md"


SAID = "bench:said"


class Changing:
    """An app with one actor, which says a word."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.file = bench.folder / "changing" / "actors.py"
        self.file.parent.mkdir()
        (self.file.parent / "__init__.py").touch()
        bench.environment["PYTHONPATH"] = str(bench.folder)

    def write(self, word: str) -> None:
        self.replace(
            "import dramatiq\n\n@dramatiq.actor(queue_name='urgent')\ndef say():\n"
            f"    dramatiq.get_broker().client.rpush({SAID!r}, {word!r})\n"
        )

    def replace(self, code: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(code)
        new.replace(self.file)

    def says(self) -> str:
        before = self.bench.client.llen(SAID)
        message: Message[None] = Message(queue_name="urgent", actor_name="say", args=(), kwargs={}, options={})
        self.bench.broker.enqueue(message)
        wait_for(lambda: self.bench.client.llen(SAID) > before)
        return str(self.bench.client.lindex(SAID, -1), "utf-8")  # type: ignore[arg-type]


@pytest.fixture
def changing(bench: Bench) -> Changing:
    app = Changing(bench)
    app.write("one")
    return app


def test_changed_code_runs_after_a_drain_and_a_syntax_error_changes_nothing(bench, changing):
    [command] = code_blocks(read(PAGE), "sh")
    words = command.split()
    assert words[:3] == ["manage.py", "switchyard", "runpools"]
    reloader = bench.start(*words[2:], "urgent", apps=f"{BENCH} changing")
    bench.wait_for_log("pools: all ready")
    assert changing.says() == "one"
    held = bench.begun("urgent", ms=1_500)

    changing.replace("def say(:\n")
    bench.wait_for_log("changing/actors.py:1: invalid syntax; the pools keep running the old code")
    still = changing.says()
    changing.write("two")
    wait_for(lambda: "pools: all drained" in bench.log())

    assert (still, changing.says()) == ("one", "two")
    assert bench.ended(held) is not None
    assert len([note for note in bench.notes(STARTED) if note["token"] == held]) == 1
    os.kill(reloader.pid, signal.SIGINT)
    assert reloader.wait(60) == 0
    assert bench.log().count("pools: all drained") == 2


def test_pools_whose_code_fails_come_back_with_a_change_and_lose_nothing(bench, changing):
    reloader = bench.up("runpools", "--reload", "urgent", apps=f"{BENCH} changing")

    changing.replace("import no_such_module\n")
    bench.wait_for_log("they start again when a file changes")
    sent = bench.send("urgent")
    changing.write("three")

    assert changing.says() == "three"
    wait_for(lambda: bench.ended(sent))
    assert reloader.poll() is None


@pytest.mark.long
def test_a_stuck_task_delays_neither_the_new_code_nor_the_end(bench, changing):
    reloader = bench.up("runpools", "--reload", "slow", "urgent", apps=f"{BENCH} changing")
    stuck = bench.begun("slow", ms=60_000, how="refuse")

    changing.write("two")
    bench.wait_for_log("pool urgent: draining")

    assert changing.says() == "two"
    wait_for(lambda: len([note for note in bench.notes(STARTED) if note["token"] == stuck]) == 2)
    os.kill(reloader.pid, signal.SIGINT)
    assert reloader.wait(60) is not None


def test_ctrl_c_during_a_restart_ends_everything_and_a_second_one_at_once(bench, changing):
    reloader = bench.up("runpools", "--reload", "--grace", "60", "urgent", apps=f"{BENCH} changing")
    bench.begun("urgent", ms=60_000)

    changing.write("two")
    bench.wait_for_log("pool urgent: draining")
    pids = [process.pid for process in psutil.Process(reloader.pid).children(recursive=True)]
    os.kill(reloader.pid, signal.SIGINT)
    os.kill(reloader.pid, signal.SIGTERM)

    assert reloader.wait(60) == 70
    assert len(pids) > 2
    assert not [pid for pid in pids if is_alive(pid)]
