"""A child that is to be replaced, for what a task left in it too, or does not come to its end in peace."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


def test_a_child_that_crashes_while_it_is_replaced_counts_as_a_crash(bench: Bench) -> None:
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
def test_a_child_in_which_a_task_left_too_much_is_replaced_and_its_neighbour_not_blamed(
    bench: Bench, hows: list[str], why: str, runs: int
) -> None:
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


def test_a_child_that_can_reach_no_server_as_it_drains_has_the_grace_and_no_longer(bench: Bench) -> None:
    bench.up("runpool", "urgent", "--grace", "1")

    bench.send("urgent", ms=3_000, how="cut_off")

    assert wait_for(lambda: (found := bench.report("urgent")) and found.restarts.get("no_descriptors"))
    bench.ran("urgent")


def test_a_child_that_is_replaced_and_stands_still_is_killed(bench: Bench) -> None:
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


def test_what_all_jobs_of_a_process_share_is_put_back_in_the_name_of_the_actor(bench: Bench) -> None:
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


def test_a_child_in_which_a_thread_keeps_a_transaction_after_its_job_is_replaced(bench: Bench) -> None:
    bench.up("runpools", "urgent", "webhook", "--no-history")

    line = "a thread keeps a transaction after its job; the child is replaced"
    for times, queue in enumerate(("urgent", "webhook"), start=1):
        bench.send(queue, how="leave_transaction")

        wait_for(lambda times=times: bench.log().count(line) == times)  # type: ignore[misc]
        report = wait_for(lambda queue=queue: (found := bench.report(queue)) and found.restarts and found)  # type: ignore[misc]
        assert report.restarts == {"stuck_message": 1}
        bench.ran(queue)


def test_jobs_that_wait_for_a_transaction_which_a_thread_keeps_go_back_and_their_neighbours_end(bench: Bench) -> None:
    bench.up("runpool", "urgent")
    bench.ran("urgent", how="leave_transaction")

    waits, works = bench.send("urgent", how="wait_for_transaction"), bench.send("urgent", ms=14_000)

    wait_for(lambda: bench.ended(waits) and bench.ended(works), 100)
    starts = [note["token"] for note in bench.notes(STARTED)]
    assert (starts.count(waits), starts.count(works)) == (2, 1)
    assert "] retried" not in bench.log(), "it spent an attempt"
    assert "It ran: urgent_job" in bench.log()
    assert wait_for(lambda: (found := bench.report("urgent")) and found.restarts) == {"stuck_message": 1}
