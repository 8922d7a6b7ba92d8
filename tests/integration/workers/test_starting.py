"""Conditions that prevent the start of a pool, and those that do not; ``run``: one pool, schedules and history."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from itertools import pairwise
from pathlib import Path

from switchyard.broker.keys import Keys
from switchyard.embedded.server import EmbeddedServer
from switchyard.long_running import HISTORY_WRITER, SCHEDULER
from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.waiting import wait_for


def test_an_unknown_pool_is_refused_by_name_with_those_that_exist(bench: Bench) -> None:
    one = bench.start("runpool", "urgnet", log="one")
    several = bench.start("runpools", "urgent", "slwo", log="several")

    assert (one.wait(60), several.wait(60)) == (78, 78)
    fact = "refused to start: pool 'urgnet' is not declared; the yard has urgent, slow, webhook, retries"
    assert fact in bench.log("one")
    assert "pool 'slwo' is not declared" in bench.log("several")


def test_a_wrong_yard_is_refused_with_each_mistake_and_its_fix(bench: Bench) -> None:
    one = bench.start("runpool", "urgent", yard="wrong", log="one")
    several = bench.start("runpools", yard="wrong", log="several")

    assert (one.wait(60), several.wait(60)) == (78, 78)
    for log in (bench.log("one"), bench.log("several")):
        assert "(switchyard.E010)" in log
        assert "lower processes or slots, or raise database_connections" in log
        assert "(switchyard.E011)" in log


def test_a_taken_metrics_port_is_refused(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pool = bench.start("runpool", "urgent", "--metrics-port", str(taken.getsockname()[1]))

        assert pool.wait(60) == 78
        assert "cannot serve metrics" in bench.log()


def test_a_pool_starts_without_its_broker_and_works_when_it_comes(bench: Bench, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "valkey").start()
    server.stop()
    late = Bench(server.url, tmp_path)
    late.up("runpool", "urgent")
    assert "the server does not answer" in late.log()

    server.start()
    token = late.send("urgent")

    wait_for(lambda: late.ended(token))
    wait_for(lambda: late.report("urgent"))
    late.stop_all()
    server.stop()


def test_a_thread_that_runs_before_the_fork_is_named_and_no_other(bench: Bench) -> None:
    starts = "import threading\nthreading.Thread(target=threading.Event().wait, name='sender', daemon=True).start()"
    (bench.folder / "sitecustomize.py").write_text(starts)
    bench.environment["PYTHONPATH"] = f"{bench.folder}:{bench.environment.get('PYTHONPATH', '')}"
    for command, pool in (("runpool", "urgent"), ("runpools", "slow")):
        bench.start(command, pool, log=pool)
        bench.wait_for_log(f"pool {pool}: ready", log=pool)
        assert bench.log(pool).count("warning: 1 threads run before the pools fork, sender: ") == 1


def test_two_supervisors_of_one_pool_keep_their_metrics_apart(bench: Bench) -> None:
    bench.up("runpool", "urgent", log="first")

    bench.start("runpool", "urgent", log="second")

    bench.wait_for_log("pool urgent: ready", log="second")
    wait_for(lambda: len({report.metrics_port for report in bench.reports.read_all()}) == 2)
    assert {path.name for path in (bench.folder / "metrics").iterdir() if path.is_dir()} == {"urgent", "urgent.2"}


def test_the_web_and_the_scheduler_refuse_a_wrong_yard_as_well(bench: Bench) -> None:
    scheduler = bench.start("runscheduler", yard="wrong", log="scheduler")
    web = bench.start_module("uvicorn", "project.asgi:application", "--port", "0", yard="wrong", log="web")

    assert (scheduler.wait(60), web.wait(60)) == (78, 78)
    assert "(switchyard.E011)" in bench.log("scheduler")
    assert "(switchyard.E011)" in bench.log("web")


HELD_MS = 10_000
HEAP_BYTES = 64 * 2**20


def start(bench: Bench, log: str) -> subprocess.Popen[bytes]:
    process = bench.start("switchyard", "run", yard="small form", log=log)
    bench.wait_for_log("pool small: ready (1 × 4 threads)", log=log)
    return process


def heaps(pid: int) -> int:
    """Return the number of heaps that glibc made for threads: each reserves 64 MiB, and uses the beginning."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    spans = [[*(int(end, 16) for end in line[0].split("-")), line[1]] for line in lines]
    return sum(
        used[2] == "rw-p" and rest[2] == "---p" and rest[1] == used[0] + HEAP_BYTES for used, rest in pairwise(spans)
    )


def test_a_small_yard_keeps_its_promises_and_loses_nothing_when_all_of_it_is_killed(bench: Bench) -> None:
    run = start(bench, "first")
    wait_for(lambda: set(titles_below(run.pid)) == {"small child 1", "schedules and history"})
    wait_for(lambda: all(bench.client.exists(Keys().lock(name)) for name in (SCHEDULER, HISTORY_WRITER)))

    held = [bench.send("slow", ms=HELD_MS) for _ in range(3)]
    wait_for(lambda: all(bench.started(token) for token in held))
    waiting = [bench.send(queue, ms=10) for queue in ("webhook", "slow")]
    urgent = [bench.send("urgent", ms=10) for _ in range(3)]
    wait_for(lambda: all(bench.ended(token) for token in urgent))
    assert not any(bench.ended(token) for token in held)
    assert not any(bench.started(token) for token in waiting)

    below = titles_below(run.pid)
    assert all(heaps(pid) <= 2 for pid in below.values())
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, below.values())))
    second = start(bench, "second")
    wait_for(lambda: all(bench.ended(token) for token in (*held, *waiting)))

    beside = titles_below(second.pid)["schedules and history"]
    for pid in (second.pid, beside):  # as Ctrl-C in a terminal does
        os.kill(pid, signal.SIGINT)
    assert second.wait(60) == 0
    assert f"schedules and history (pid {beside}) exited" not in bench.log("second")
    assert not bench.client.exists(Keys().lock(SCHEDULER))


def test_run_refuses_a_yard_of_pools_and_names_the_setting(bench: Bench) -> None:
    assert bench.start("switchyard", "run").wait(60) == 78

    assert "SWITCHYARD_SMALL: is not set" in bench.log()
    assert "3 or more, in every process, the web too" in bench.log()
