"""Liveness tells pools that make progress from those that only run; children that are stuck or spoilt are replaced."""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import dramatiq
import psutil
import pytest
from dramatiq.middleware import Middleware

from switchyard.broker.stores.pool_reports import SilentChild
from switchyard.workers.child.main import all_work
from tests.factories.yards import small_yard
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.bench.losing import TO_LOSE
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for


def health(bench: Bench, pool: str) -> tuple[int, str]:
    report = wait_for(lambda: bench.report(pool))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/health", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_pool_is_well_while_it_idles_works_and_waits_for_a_long_task(bench):
    bench.up("runpool", "slow")
    wait_for(lambda: health(bench, "slow") == (200, "ok\n"))
    tokens = [bench.send("slow", ms=60_000) for _ in range(3)]
    wait_for(lambda: len(bench.notes(STARTED)) == 2)

    assert health(bench, "slow") == (200, "ok\n")
    assert len(tokens) == 3


def test_an_idle_child_that_hangs_is_replaced_and_the_probe_does_not_hang_with_it(bench):
    pool = bench.up("runpool", "urgent")
    child = titles_below(pool.pid)["urgent child 1"]

    os.kill(child, signal.SIGSTOP)

    bench.wait_for_log("sent no heartbeat for 1")
    bench.ran("urgent")
    assert not psutil.pid_exists(child)
    assert health(bench, "urgent")[0] == 200


@pytest.mark.long
def test_a_pool_that_was_stopped_as_a_whole_kills_nobody_for_it(bench):
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
def test_an_output_that_nobody_reads_stops_no_task_and_no_supervisor(bench, reader):
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
def test_a_child_whose_task_keeps_the_interpreter_is_reported_with_the_tasks_line(bench, queue):
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


def test_a_child_that_holds_a_message_which_no_thread_runs_is_replaced(bench):
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
def test_a_child_notices_a_thread_that_ended(yard_broker, run_worker):
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


def test_a_child_that_crashes_while_it_is_replaced_counts_as_a_crash(bench):
    bench.up("runpool", "urgent", yard="aging")
    long = bench.send("urgent", ms=60_000)
    first = wait_for(lambda: bench.started(long))
    for _ in range(200):
        bench.send("urgent", ms=5)
    wait_for(lambda: bench.client.llen(ENDED) == 200)

    def takes_nothing() -> bool:
        tokens = [bench.send("urgent") for _ in range(8)]
        ends = [wait_for(lambda token=token: bench.ended(token)) for token in tokens]  # type: ignore[misc]
        return all(end["pid"] != first["pid"] for end in ends)

    wait_for(takes_nothing)

    os.kill(first["pid"], signal.SIGKILL)

    again = wait_for(lambda: len([note for note in bench.notes("bench:started") if note["token"] == long]) == 2)
    report = wait_for(lambda: (found := bench.report("urgent")) and "SIGKILL" in found.restarts and found)
    assert again
    assert report.restarts["SIGKILL"] == 1, "successors may have been replaced as well, on purpose"


@pytest.mark.parametrize(
    ("hows", "why", "runs"),
    [
        (["leave_threads", "hoard", "freeze_clock"], "recycled", 1),
        (["freeze_ill"], "no_descriptors", 1),
        (["close_descriptors"], "no_descriptors", 1),
        (["hold_log"], "stuck_message", 2),
    ],
)
def test_a_littered_child_is_replaced_no_neighbour_blamed(bench, hows, why, runs):
    bench.up("runpool", "urgent", "--grace", "1")
    for times, how in enumerate(hows, start=1):
        neighbour = bench.send("urgent", ms=3_000)
        first = wait_for(lambda token=neighbour: bench.started(token))  # type: ignore[misc]

        bench.send("urgent", how=how)

        def replaced(times: int = times) -> dict[str, int] | None:
            report = bench.report("urgent")
            return report.restarts if report and sum(report.restarts.values()) >= times else None

        assert wait_for(replaced) == {why: times}, how
        last = bench.send("urgent")
        assert wait_for(lambda token=last: bench.ended(token))["pid"] != first["pid"], how  # type: ignore[misc]
        wait_for(lambda token=neighbour: [note["token"] for note in bench.notes(ENDED)].count(token) == runs)  # type: ignore[misc]
    assert "Unexpected failure" not in bench.log()


def test_a_child_that_can_reach_no_server_as_it_drains_has_the_grace_and_no_longer(bench):
    bench.up("runpool", "urgent", "--grace", "1")

    bench.send("urgent", ms=3_000, how="cut_off")

    assert wait_for(lambda: (found := bench.report("urgent")) and found.restarts.get("no_descriptors"))
    bench.ran("urgent")


def test_a_child_that_is_replaced_and_stands_still_is_killed(bench):
    bench.up("runpool", "urgent", "--grace", "5")
    ill = bench.send("urgent", ms=60_000, how="open_nothing")
    bench.wait_for_log("no file descriptor left; it is replaced")

    os.kill(wait_for(lambda: bench.started(ill))["pid"], signal.SIGSTOP)

    bench.wait_for_log("did not end by itself; killed")
    assert wait_for(lambda: (found := bench.report("urgent")) and found.restarts) == {"no_descriptors": 1}


SHARED = (
    *("time-out of sockets", "recursion limit", "switch interval", "stack size of threads", "collection of garbage"),
    *("locale", "environment", "filter of warnings", "log", "broker"),
)


def test_what_all_jobs_of_a_process_share_is_put_back_in_the_name_of_the_actor(bench):
    bench.environment["BENCH"] = "1"
    parent = bench.up("runpools", "urgent", "webhook", "--no-history")
    left = [("umask", "urgent"), ("limits of the process", "urgent"), ("working folder", "webhook")]
    left += [("signal handlers", "webhook"), ("mask of signals", "webhook")]
    left += [(what, queue) for what in SHARED for queue in ("urgent", "webhook")]
    for times in (1, 2):
        for how in ("litter", "meddle"):
            tokens = [bench.send(queue, how=how) for queue in ("urgent", "webhook")]
            wait_for(lambda tokens=tokens: all(map(bench.ended, tokens)))  # type: ignore[misc]
        for what, actor in left:
            line = f"another {what}, which was put back. It may be one of: {actor}_job"
            wait_for(lambda line=line, times=times: bench.log().count(line) == times, 20)  # type: ignore[misc]

    parent.terminate()
    assert parent.wait(60) == 0


def test_a_child_in_which_a_thread_keeps_a_transaction_after_its_job_is_replaced(bench):
    bench.up("runpools", "urgent", "webhook", "--no-history")

    line = "a thread keeps a transaction after its job; the child is replaced"
    for times, queue in enumerate(("urgent", "webhook"), start=1):
        bench.send(queue, how="leave_transaction")

        wait_for(lambda times=times: bench.log().count(line) == times)  # type: ignore[misc]
        report = wait_for(lambda queue=queue: (found := bench.report(queue)) and found.restarts and found)  # type: ignore[misc]
        assert report.restarts == {"stuck_message": 1}
        bench.ran(queue)


def test_jobs_that_wait_for_a_transaction_which_a_thread_keeps_go_back_and_their_neighbours_end(bench):
    bench.up("runpool", "urgent")
    bench.ran("urgent", how="leave_transaction")

    waits, works = bench.send("urgent", how="wait_for_transaction"), bench.send("urgent", ms=14_000)

    wait_for(lambda: bench.ended(waits) and bench.ended(works), 100)
    starts = [note["token"] for note in bench.notes(STARTED)]
    assert (starts.count(waits), starts.count(works)) == (2, 1)
    assert "] retried" not in bench.log(), "it spent an attempt"
    assert "It ran: urgent_job" in bench.log()
    assert wait_for(lambda: (found := bench.report("urgent")) and found.restarts) == {"stuck_message": 1}
