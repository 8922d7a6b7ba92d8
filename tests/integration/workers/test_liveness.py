"""Liveness tells pools that make progress from those that only run; stuck messages and ended threads are mended."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import dramatiq
import psutil
import pytest
from dramatiq.middleware import Middleware

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.pool_reports import SilentChild
from switchyard.workers.child.main import all_work
from tests.factories.yards import small_yard
from tests.integration.workers.bench.actors import STARTED
from tests.integration.workers.bench.losing import TO_LOSE
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for


def health(bench: Bench, pool: str) -> tuple[int, str]:
    """Return what a pool's probe is answered."""
    report = wait_for(lambda: bench.report(pool))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/health", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_pool_is_well_while_it_idles_works_and_waits_for_a_long_task(bench: Bench) -> None:
    bench.up("runpool", "slow")
    wait_for(lambda: health(bench, "slow") == (200, "ok\n"))
    tokens = [bench.send("slow", ms=60_000) for _ in range(3)]
    wait_for(lambda: len(bench.notes(STARTED)) == 2)

    assert health(bench, "slow") == (200, "ok\n")
    assert len(tokens) == 3


def test_an_idle_child_that_hangs_is_replaced_and_the_probe_does_not_hang_with_it(bench: Bench) -> None:
    pool = bench.up("runpool", "urgent")
    child = titles_below(pool.pid)["urgent child 1"]

    os.kill(child, signal.SIGSTOP)

    bench.wait_for_log("sent no heartbeat for 1")
    bench.ran("urgent")
    assert not psutil.pid_exists(child)
    assert health(bench, "urgent")[0] == 200


@pytest.mark.long
def test_a_pool_that_was_stopped_as_a_whole_kills_nobody_for_it(bench: Bench) -> None:
    pool = bench.up("runpool", "urgent")
    below = titles_below(pool.pid)
    members = [pool.pid, *below.values()]

    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    wait_for(lambda: time.monotonic() - stopped_s > 11)
    for pid in members:
        os.kill(pid, signal.SIGCONT)

    bench.ran("urgent")
    assert titles_below(pool.pid) == below


@pytest.mark.parametrize("reader", ["stops", "ends"])
def test_an_output_that_nobody_reads_stops_no_task_and_no_supervisor(bench: Bench, reader: str) -> None:
    os.mkfifo(bench.folder / "log")
    output = os.open(bench.folder / "log", os.O_RDONLY | os.O_NONBLOCK)
    parent = bench.start("runpools", "urgent", "webhook", "--no-history")
    for pool in ("urgent", "webhook"):
        wait_for(lambda pool=pool: (found := bench.report(pool)) and found.state == "up")  # type: ignore[misc]
    if reader == "ends":
        os.close(output)

    tokens = [bench.send(queue, how="chatter") for queue in ("urgent", "webhook")]

    wait_for(lambda: all(map(bench.ended, tokens)))
    parent.terminate()
    assert parent.wait(60) == 0


@pytest.mark.parametrize("queue", ["urgent", pytest.param("webhook", marks=pytest.mark.long)])
def test_a_child_whose_task_keeps_the_interpreter_is_reported_with_the_line_of_the_task(
    bench: Bench, queue: str
) -> None:
    pool = bench.up("runpool", queue)
    child = titles_below(pool.pid)[f"{queue} child 1"]

    token = bench.send(queue, ms=12_000, how="hold")

    def silent() -> list[SilentChild]:
        return [each for report in bench.reports.read_all() for each in report.silent if each.stacks]

    [found] = wait_for(silent)
    assert (found.pid, found.number, list(found.runs)) == (child, 1, [bench.ids[token]])
    assert found.silent_ms >= 4_000
    assert any(re.fullmatch(r"tests/ways\.py:\d+ hold", frame) for frame in found.stacks[0].frames)
    ended = wait_for(lambda: bench.ended(token))
    assert ended is not None and ended["pid"] == child
    wait_for(lambda: not silent())


def test_a_child_that_holds_a_message_which_no_thread_runs_is_replaced(bench: Bench) -> None:
    bench.environment["SWITCHYARD_CHILD_MIDDLEWARE"] = "tests.integration.workers.bench.losing.Losing"
    bench.up("runpools", "urgent", "webhook", "--no-history", yard="short")
    for queue in ("urgent", "webhook"):
        pid = bench.ran(queue)["pid"]

        bench.client.set(TO_LOSE, 1)
        lost = bench.send(queue)

        ended = wait_for(lambda token=lost: bench.ended(token))  # type: ignore[misc]
        report = wait_for(lambda queue=queue: (found := bench.report(queue)) and found.restarts and found)  # type: ignore[misc]
        assert ended["pid"] != pid
        assert len([note for note in bench.notes("bench:started") if note["token"] == lost]) == 1
        assert report.restarts == {"stuck_message": 1}
        assert f"no thread runs message {bench.ids[lost]} of {queue}" in bench.log()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_child_notices_a_thread_that_ended(yard_broker: Callable[..., RedisBroker], run_worker: Any) -> None:
    class ExitCause(Middleware):
        def after_process_message(self, broker: Any, message: Any, **how: Any) -> None:
            raise SystemExit

    broker = yard_broker(small_yard(max_retries=0), extra=[ExitCause()])

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker, threads=2) as worker:
        before = all_work(worker)
        job.send()
        wait_for(lambda: not all_work(worker))

    assert before
