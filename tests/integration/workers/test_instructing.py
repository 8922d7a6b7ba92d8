"""Pools that an operator quiets, lets take work again and stops; actors and greenlets that are cancelled; reloads."""

import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest
from dramatiq import Message

from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from tests.factories.commands import json_of
from tests.integration.workers.bench.actors import FANNED_OUT, STARTED, fan_out
from tests.integration.workers.conftest import BENCH, ROOT, Bench
from tests.integration.workers.test_cancelling import Jobs
from tests.processes import is_alive
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for


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
