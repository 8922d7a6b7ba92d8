"""``runpools --reload``: the code that runs is the code that is there."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from dramatiq import Message

from tests.integration.workers.bench.actors import STARTED
from tests.integration.workers.conftest import BENCH, Bench
from tests.processes import is_alive
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

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
        """Have the actor say a word, from now on."""
        self.replace(
            "import dramatiq\n\n@dramatiq.actor(queue_name='urgent')\ndef say():\n"
            f"    dramatiq.get_broker().client.rpush({SAID!r}, {word!r})\n"
        )

    def replace(self, code: str) -> None:
        """Write the file, as an editor does."""
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
    """The app, saying "one"."""
    app = Changing(bench)
    app.write("one")
    return app


def test_changed_code_runs_after_a_drain_and_a_syntax_error_changes_nothing(bench: Bench, changing: Changing) -> None:
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


def test_pools_whose_code_does_not_start_come_back_with_the_next_change_and_lose_nothing(
    bench: Bench, changing: Changing
) -> None:
    reloader = bench.up("runpools", "--reload", "urgent", apps=f"{BENCH} changing")

    changing.replace("import no_such_module\n")
    bench.wait_for_log("they start again when a file changes")
    sent = bench.send("urgent")
    changing.write("three")

    assert changing.says() == "three"
    wait_for(lambda: bench.ended(sent))
    assert reloader.poll() is None


@pytest.mark.long
def test_a_stuck_task_delays_neither_the_new_code_nor_the_end(bench: Bench, changing: Changing) -> None:
    reloader = bench.up("runpools", "--reload", "slow", "urgent", apps=f"{BENCH} changing")
    stuck = bench.begun("slow", ms=60_000, how="refuse")

    changing.write("two")
    bench.wait_for_log("pool urgent: draining")

    assert changing.says() == "two"
    wait_for(lambda: len([note for note in bench.notes(STARTED) if note["token"] == stuck]) == 2)
    os.kill(reloader.pid, signal.SIGINT)
    assert reloader.wait(60) is not None


def test_ctrl_c_during_a_restart_ends_everything_and_a_second_one_at_once(bench: Bench, changing: Changing) -> None:
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
