"""``runpools --reload`` replaces pool by pool."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter

import psutil
import pytest

from tests.integration.workers.conftest import Bench
from tests.integration.workers.group.changing import Changing
from tests.processes import is_alive
from tests.waiting import wait_for

POOLS = ("urgent", "slow", "retries", "webhook")
REPLACEMENT = ["metrics at", "ready", "draining", "drained"]
# Children of the pool with a niceness of its own end before they are ready.
BREAKS_SLOW = """import os
import dramatiq

class Breaks(dramatiq.Middleware):
    def after_process_boot(self, broker):
        if os.nice(0) > os.getpriority(os.PRIO_PROCESS, os.getppid()):
            os._exit(1)

dramatiq.get_broker().add_middleware(Breaks())
"""


@pytest.fixture
def changing(bench: Bench) -> Changing:
    """The app, saying "one"."""
    app = Changing(bench)
    app.write("one")
    return app


def events(log: str) -> list[tuple[str, str]]:
    """Return pool and event of the log's lines about supervisors."""
    return re.findall(rf"pool (\w+): ({'|'.join(REPLACEMENT)})", log)


def titles(reloader: int) -> Counter[str]:
    """Return how many parents of pools and supervisors run below a reloader, by title."""
    found: Counter[str] = Counter()
    # Not those below: a child that was just forked has the title of its supervisor.
    for parent in psutil.Process(reloader).children():
        with contextlib.suppress(psutil.Error):
            for process in (parent, *parent.children()):
                found[" ".join(process.cmdline()).strip().removeprefix("switchyard: ")] += 1
    return Counter({title: count for title, count in found.items() if title.startswith("pool")})


def hold_first_pool(bench: Bench) -> str:
    """Have the pool that is replaced first drain for some seconds."""
    held = bench.send("urgent", ms=4_000)
    wait_for(lambda: bench.started(held))
    return held


def serve(bench: Bench, queue: str) -> str:
    """Send a job and wait until it ended; return its token."""
    token = bench.send(queue)
    wait_for(lambda: bench.ended(token))
    return token


def test_pools_are_replaced_one_at_a_time_and_each_when_its_successor_is_ready(
    bench: Bench, changing: Changing
) -> None:
    reloader = bench.start("runpools", "--reload", settings="reloaded_settings")
    bench.wait_for_log("pools: all ready")
    held = bench.send("slow", ms=1_500)
    wait_for(lambda: bench.started(held))
    before, sent, most = len(bench.log()), [held], 0

    changing.write("two")
    while "pools: all drained" not in bench.log():
        sent.append(serve(bench, ("urgent", "slow", "webhook")[len(sent) % 3]))
        running = titles(reloader.pid)
        most = max(most, sum(running[f"pool {name}"] - 1 for name in POOLS))

    seen = events(bench.log()[before:])
    # Those with gevent, which load anew, come last.
    assert seen == [(name, event) for name in POOLS for event in REPLACEMENT]
    assert most <= 1
    assert changing.says() == "two"
    assert all(bench.ended(token) for token in sent)
    assert len(bench.notes("bench:started")) == len(sent)


@pytest.mark.long
def test_a_pool_that_does_not_start_keeps_its_old_one_while_the_others_are_replaced(
    bench: Bench, changing: Changing
) -> None:
    reloader = bench.start("runpools", "--reload", settings="reloaded_settings")
    bench.wait_for_log("pools: all ready")
    before = len(bench.log())

    changing.write("two", BREAKS_SLOW)
    bench.wait_for_log("reload: pool slow is not ready; until it is, its old one keeps running the old code")
    for name in ("urgent", "retries", "webhook"):
        wait_for(lambda name=name: (name, "drained") in events(bench.log()[before:]))  # type: ignore[misc]
    said = changing.says()
    serve(bench, "slow")
    drained = ("slow", "draining") in events(bench.log()[before:])
    changing.write("three")
    bench.wait_for_log("reload: all pools are replaced")

    assert (said, drained) == ("two", False)
    wait_for(lambda: titles(reloader.pid) == Counter(["pools", *(f"pool {name}" for name in POOLS)]))
    assert changing.says() == "three"


@pytest.mark.long
def test_code_that_fails_during_a_replacement_leaves_one_pool_of_each(bench: Bench, changing: Changing) -> None:
    reloader = bench.start("runpools", "--reload", settings="reloaded_settings")
    bench.wait_for_log("pools: all ready")
    hold_first_pool(bench)

    changing.write("two")
    bench.wait_for_log("pool urgent: draining")
    changing.replace("import no_such_module\n")
    bench.wait_for_log("keep running the old code; they start again when a file changes")

    wait_for(lambda: titles(reloader.pid) == Counter(["pools", "pools", *(f"pool {name}" for name in POOLS)]))
    assert changing.says() == "two"  # its pool was replaced before


@pytest.mark.long
def test_ctrl_c_during_a_replacement_ends_everything(bench: Bench, changing: Changing) -> None:
    reloader = bench.start("runpools", "--reload", "urgent", "slow", settings="reloaded_settings")
    bench.wait_for_log("pools: all ready")
    hold_first_pool(bench)

    changing.write("two")
    bench.wait_for_log("pool urgent: draining")
    pids = [process.pid for process in psutil.Process(reloader.pid).children(recursive=True)]
    os.kill(reloader.pid, signal.SIGINT)

    assert reloader.wait(60) == 0
    assert len(pids) > 2
    assert not [pid for pid in pids if is_alive(pid)]
    assert bench.log().count("pools: all drained") == 2


@pytest.mark.long
def test_gevent_pools_of_one_parent_are_replaced_together_and_ctrl_c_does_not_cut_their_drain(
    bench: Bench, changing: Changing
) -> None:
    reloader = bench.start("runpools", "--reload", "--grace", "25", settings="reloaded_gevent_settings")
    bench.wait_for_log("pools: all ready")
    before = len(bench.log())

    changing.write("two")
    wait_for(lambda: ("slow", "drained") in events(bench.log()[before:]))
    held = bench.send("webhook", ms=10_000)
    wait_for(lambda: bench.started(held))
    bench.wait_for_log("pool retries: draining")
    bench.wait_for_log("pool webhook: draining")
    running = not bench.ended(held)
    ready = [name for name, event in events(bench.log()[before:]) if event == "ready"]
    os.kill(reloader.pid, signal.SIGINT)

    assert reloader.wait(60) == 0
    assert sorted(ready) == sorted(POOLS)
    assert running and bench.ended(held)
