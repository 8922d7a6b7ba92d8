"""Telling of pools: log lines, counted facts, metrics, stacks and reports; the stand-in that sends their alerts."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any
from unittest.mock import Mock

import pytest
import structlog
from dramatiq import Message

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores import yard_facts
from switchyard.conf import declared_yard
from switchyard.long_running import Leadership
from switchyard.middleware import logs
from switchyard.workers.metrics import GAPS_FILE, gaps_of
from switchyard.workers.supervisor.report import Reporter
from switchyard.workers.supervisor.supervisor import ALONE_S, StandIn
from tests.integration.workers.conftest import Bench
from tests.processes import is_alive
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.documentation.test_reference import first_column
from tests.unit.workers.supervisor.conftest import Server, make_children
from tests.waiting import wait_for

KEYS = Keys("stand-in-test")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Popen]]:
    made: list[Popen] = []

    def fork(run: Callable[[], int], *, title: str, close_inherited: object) -> int:
        made.append(Popen(["sleep", "600"]))
        return made[-1].pid

    monkeypatch.setattr("switchyard.workers.supervisor.supervisor.fork", fork)
    yield made
    for process in made:
        process.kill()
        process.wait()


def look(clock: Mock, until_s: float, *supervisors: StandIn) -> None:
    """Have supervisors look every 2 s."""
    ends_s = clock.return_value + until_s
    while clock.return_value < ends_s:
        clock.return_value += 2.0
        for supervisor in supervisors:
            supervisor.look()


def test_one_of_two_supervisors_starts_it_without_leader_and_ends_it(valkey, started):
    clock, calls = Mock(return_value=1_000.0), RedisCalls(valkey)
    with with_alert_urls("mailto:ops@example.com"):
        one, other = (StandIn(calls, KEYS, close_inherited=(), clock=clock) for _ in range(2))
    leader = Leadership(calls, KEYS)
    leader.acquire_or_renew()

    look(clock, 60.0, one, other)
    with_a_leader = len(started)
    leader.release()
    look(clock, ALONE_S - 2, one, other)
    soon = len(started)
    look(clock, 30.0, one, other)
    alone = len(started)
    [process] = started
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is the supervisor's to reap
    look(clock, 4.0, one, other)
    again = len(started)
    leader.acquire_or_renew()
    look(clock, 4.0, one, other)

    assert (with_a_leader, soon, alone, again) == (0, 0, 1, 2)
    wait_for(lambda: not is_alive(started[1].pid))
    assert not valkey.exists(KEYS.lock("alerts"))


def test_it_starts_where_the_other_supervisor_is_gone(valkey, started):
    clock, calls = Mock(return_value=1_000.0), RedisCalls(valkey)
    with with_alert_urls("mailto:ops@example.com"):
        gone, other = (StandIn(calls, KEYS, close_inherited=(), clock=clock) for _ in range(2))
    look(clock, ALONE_S + 4, gone, other)
    valkey.delete(KEYS.lock("alerts"))

    look(clock, 2.0, other)
    look(clock, 2.0, gone)

    assert len(started) == 2
    wait_for(lambda: not is_alive(started[0].pid))


def test_without_a_channel_nothing_is_asked_or_started(started):
    clock, calls = Mock(return_value=1_000.0), Mock()
    with with_alert_urls():
        supervisor = StandIn(calls, KEYS, close_inherited=(), clock=clock)

    look(clock, 60.0, supervisor)

    assert started == [] and not calls.command.called


def test_the_first_report_forgets_supervisors_that_were_killed_long_ago(valkey):
    beats = Keys().pool_beats()
    valkey.hset(beats, "urgent:gone:7", 1)
    pool = declared_yard().pools[0]
    reporter = Reporter(pool)

    report = reporter.build(make_children(pool, Server()), silent=[], state="up", metrics_port=1)
    reporter.write(report)

    assert valkey.hkeys(beats) == [report.member.encode()]


JOBS = 40


def held(bench: Bench, queue: str) -> int:
    return family_stats(RedisCalls(bench.client), Keys().queue(queue)).live.running


@pytest.mark.parametrize("kind", ["slow", "webhook"])
def test_each_attempt_is_counted_once_whatever_child_is_killed(bench, kind):
    store = yard_facts.FactStore(RedisCalls(bench.client), Keys())
    supervisor = bench.up("runpool", kind)
    report = wait_for(lambda: bench.report(kind))

    first = [bench.send(kind, 10) for _ in range(JOBS)]
    wait_for(lambda: all(bench.ended(token) for token in first) and not held(bench, kind))
    os.kill(report.children[0]["pid"], signal.SIGKILL)
    second = [bench.send(kind, 10, how) for how in ("spin", "query") for _ in range(JOBS // 2)]
    wait_for(lambda: all(bench.ended(token) for token in second))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0, bench.log()

    found = store.recent(store.server_ms())
    totals = {
        name: yard_facts.merged(of.get(name, {}) for _, of in found)
        for name in (f"a:{kind}_job", f"q:{kind}", f"p:{kind}", "r:bench")
    }
    for name, counts in totals.items():
        assert counts[yard_facts.SUCCEEDED] == yard_facts.starts(counts) == 2 * JOBS, name
        assert yard_facts.RETRIED not in counts
        assert (yard_facts.percentile_ms(counts, yard_facts.RUNS, 0.5) or 0) >= 5
        if not name.startswith("a:"):
            assert yard_facts.SQL_MS not in counts, "told of actors alone"
            continue
        assert counts[yard_facts.LOG_BYTES] >= 2 * JOBS * len('{"job_id": "", "event": "succeeded"}')
        assert 0 < counts[yard_facts.SQL_MS] < counts[yard_facts.RUN_MS], "some ask the database for a while"
        # Greenlets share a thread: its time is of none alone.
        assert 0 <= counts.get(yard_facts.PROCESSOR_MS, 0) <= (counts[yard_facts.RUN_MS] if kind == "slow" else 0)
        assert kind == "webhook" or counts[yard_facts.PROCESSOR_MS] > JOBS, "they compute"


COUNTED = re.compile(r'switchyard_messages_total\{actor="urgent_job",outcome="succeeded",queue="urgent"\} (\S+)')
GAPS = re.compile(r'switchyard_metrics_gaps_total\{pool="urgent"\} (\S+)')


def test_metrics_come_back_after_their_folder_or_its_files_were_removed(bench):
    bench.up("runpool", "urgent")
    folder = bench.folder / "metrics" / "urgent"

    def read(pattern: re.Pattern[str]) -> float:
        report = wait_for(lambda: bench.report("urgent"))
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/metrics", timeout=30) as answer:
            found = pattern.search(answer.read().decode())
        return float(found.group(1)) if found else 0.0

    def work() -> bool:
        token = bench.send("urgent")
        return wait_for(lambda: bench.ended(token))

    work()
    wait_for(lambda: read(COUNTED) >= 1)
    for gap, how in enumerate(("the folder", "the folder", "its files", "its files"), start=1):
        if how == "the folder":
            shutil.rmtree(folder.parent)
        else:
            for path in folder.iterdir():
                path.unlink()

        wait_for(lambda gap=gap: gaps_of(folder) == gap)
        wait_for(lambda: work() and read(COUNTED) >= 1)

        assert read(GAPS) == gap
    assert "metrics folder was removed while the pool runs" in bench.log()


def test_a_count_of_gaps_that_is_being_made_is_none_yet(tmp_path):
    assert gaps_of(tmp_path) == 0
    (tmp_path / GAPS_FILE).touch()
    assert gaps_of(tmp_path) == 0


IN_EVERY_LINE = {"event", "level", "logger", "timestamp", "release"}
OF_JOB = {"job_id", "actor", "queue", "attempt", "request"}


@pytest.fixture
def own_logs() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def lines_of(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    for line in found:
        assert line.keys() >= IN_EVERY_LINE, line
        assert line.keys() <= first_column("docs/reference/log-lines.md"), line
    return found


def test_lines_of_supervisor_child_and_scheduler(bench):
    bench.environment["SWITCHYARD_LOG_FORMAT"] = "json"
    run = bench.start("switchyard", "run", yard="small form")
    bench.wait_for_log("pool small: ready (1")
    bench.wait_for_log("scheduler started")
    for how in ("sleep", "fail"):
        options = {"origin": {"request": "r-1"}, "max_retries": 0}
        bench.broker.enqueue(Message("urgent", "urgent_job", ("token", 0, how), {}, options))
    bench.wait_for_log('"dead"')
    bench.wait_for_log('"succeeded"')
    run.terminate()
    assert run.wait(60) == 0

    lines = lines_of(bench.log())

    assert {line["release"] for line in lines} == {"bench"}
    assert {"switchyard.jobs", "switchyard.workers", "switchyard.scheduler"} <= {line["logger"] for line in lines}
    ends = [line for line in lines if line["logger"] == "switchyard.jobs" and line["event"] in ("dead", "succeeded")]
    assert len(ends) == 2
    assert all(line.keys() >= OF_JOB and line["request"] == "r-1" for line in ends)


def test_lines_of_the_web(client, own_logs, capsys):
    logs.configure("json", release="7")  # here: a test's captured stream is another one than its fixtures'

    client.get("/nowhere", headers={"X-Request-ID": "r-2"})

    [line] = [line for line in lines_of(capsys.readouterr().err) if line["logger"] == "django.request"]
    assert (line["request"], line["release"]) == ("r-2", "7")


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("urgent", "seize"),
        ("webhook", "seize"),
        pytest.param("urgent", "hang", marks=pytest.mark.long),
        pytest.param("webhook", "sleep", marks=pytest.mark.long),
    ],
)
def test_signal_and_request_show_where_a_child_is_even_while_c_holds_it_up(bench, pool, how):
    supervisor = bench.up("runpools", pool, "--no-history")
    token = bench.send(pool, ms=30_000, how=how)
    pid = wait_for(lambda: bench.started(token))["pid"]
    report = wait_for(lambda: bench.report(pool))

    shown = bench.folder / "stacks" / f"{pool}-{pid}.txt"
    where = "actors.py" if how == "sleep" else "in lock_twice"

    def is_shown() -> bool:
        supervisor.send_signal(signal.SIGUSR1)  # again, until the task is where it stays; no flood, that starves it
        with contextlib.suppress(AssertionError):
            return wait_for(lambda: any(where in path.read_text() for path in written()), 1)
        return False

    def written() -> list[Path]:
        # Its child is replaced once it has passed the hard limit, and the task runs again in another one.
        return list(shown.parent.glob(f"{pool}-*.txt"))

    def frames_there() -> list[str]:
        request = uuid.uuid4().hex
        bench.reports.ask_for_stacks(report.member, request)
        [child] = wait_for(lambda: bench.reports.read_stacks(request))
        assert child.pid == pid
        frames = [frame for stack in child.stacks for frame in stack.frames]
        return frames if any(where.removeprefix("in ") in frame for frame in frames) else []

    frames = wait_for(frames_there)
    try:
        wait_for(is_shown, 60, what=f"{where} in {shown}")
    except AssertionError:
        print(*(f"{path}\n{path.read_text()[-2_000:]}" for path in written()), bench.log(), sep="\n")
        raise
    assert [frame for frame in frames if not re.fullmatch(r"[^:]+:\d+ [\w.<>]+", frame)] == []
    wait_for(lambda: str(shown) in bench.log())
    assert supervisor.poll() is None


@pytest.mark.long
def test_one_signal_to_the_common_parent_reaches_all_pools_and_ends_none(bench):
    parent = bench.up("runpools", "urgent", "slow")

    parent.send_signal(signal.SIGUSR1)

    wait_for(lambda: sum(bool(path.read_text()) for path in (bench.folder / "stacks").iterdir()) == 3)
    assert parent.poll() is None


def test_a_crash_says_where_it_was_and_leaves_no_file(bench):
    bench.up("runpool", "urgent")
    token = bench.send("urgent", ms=50, how="crash")
    pid = wait_for(lambda: bench.started(token))["pid"]

    bench.wait_for_log("killed by SIGSEGV in ")

    assert "actors.py" in bench.log()
    assert "crash" in bench.log()
    wait_for(lambda: not (bench.folder / "stacks" / f"urgent-{pid}.txt").exists())
