"""The page about draining a pool: its commands, as they stand there, on a real pool."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.job_records import JobRecords
from switchyard.conf import declared_yard
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

PAGE = read("docs/how-to/drain-a-pool.md")
POOL = yaml.safe_load(read("ops/compose.yaml"))["x-pool"]
STOP_GRACE_S = int(POOL["stop_grace_period"].removesuffix("s"))
START, STOP = code_blocks(PAGE, "sh")
SHOW, KILL = STOP.splitlines()
DRAINING, OUTLASTED, DRAINED, AT_ONCE, FORCED = re.findall(r"^\| `([^`]+)` \| [^|]*\|$", PAGE, flags=re.MULTILINE)[:5]


def start(bench: Bench, grace: str = "60", log: str = "log") -> subprocess.Popen[bytes]:
    """Start the page's pool, and wait until it is ready."""
    python, manage, *arguments = shlex.split(START)
    assert (python, manage, arguments[-1]) == ("python", "manage.py", "60")
    pool = bench.start(*arguments[:-1], grace, log=log)
    bench.wait_for_log("pool slow: ready", log=log)
    return pool


def tell(pool: subprocess.Popen[bytes]) -> None:
    """Send what the page sends, to the process that it finds."""
    titles = {"pool slow": pool.pid, **titles_below(pool.pid)}
    pattern = re.compile(shlex.split(SHOW)[-1])
    [pid] = [pid for title, pid in titles.items() if pattern.search(f"{pid} switchyard: {title}")]
    subprocess.run(["bash", "-c", KILL.replace("PID", str(pid))], check=True)


def run_two(bench: Bench, ms: int) -> list[str]:
    """Fill both slots of the pool, and return the tokens."""
    tokens = [bench.send("slow", ms=ms) for _ in range(2)]
    wait_for(lambda: all(bench.started(token) for token in tokens))
    return tokens


def starts(bench: Bench, token: str) -> list[int]:
    """Return the pids in which a job started."""
    return [note["pid"] for note in bench.notes("bench:started") if note["token"] == token]


def test_a_pool_that_is_told_to_end_ends_what_runs_and_leaves_what_waits(bench: Bench) -> None:
    pool = start(bench)
    running = run_two(bench, 1_500)
    waiting = [bench.send("slow") for _ in range(3)]

    tell(pool)

    assert pool.wait(60) == 0
    assert all(bench.ended(token) for token in running)
    assert not any(bench.started(token) for token in waiting)
    assert bench.waiting("slow") == 3
    for line in (DRAINING, DRAINED):
        assert line in bench.log()
    start(bench, log="next")
    wait_for(lambda: all(bench.ended(token) for token in waiting), what="what waited runs with the next start")


def test_a_task_that_outlasts_the_grace_starts_elsewhere_with_its_attempt_unspent(bench: Bench) -> None:
    pool = start(bench, grace="1")
    [token, _] = run_two(bench, 8_000)

    tell(pool)

    assert pool.wait(60) == 0
    assert OUTLASTED in bench.log()
    assert DRAINED in bench.log()
    start(bench, log="next")
    wait_for(lambda: len(starts(bench, token)) == 2)
    wait_for(lambda: bench.ended(token))
    records = JobRecords(RedisCalls(bench.client), Keys(), [queue.name for queue in declared_yard().queues])
    record = wait_for(lambda: (found := records.read(bench.ids[token])) and found.state == "succeeded" and found)
    assert record.attempts == 1


@pytest.mark.parametrize("twice", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_second_signal_or_sigquit_ends_a_pool_at_once(bench: Bench, twice: bool) -> None:
    pool = start(bench)
    [token, _] = run_two(bench, 60_000)
    if twice:
        tell(pool)
        bench.wait_for_log(DRAINING)
        tell(pool)
    else:
        [quit_] = re.findall(r"`(kill -QUIT PID)`", PAGE)
        subprocess.run(["bash", "-c", quit_.replace("PID", str(pool.pid))], check=True)

    assert pool.wait(30) == 70
    assert AT_ONCE in bench.log()
    assert FORCED in bench.log()
    start(bench, log="next")
    wait_for(lambda: len(starts(bench, token)) == 2, what="it starts again")


def test_what_stops_the_pool_waits_for_as_much_longer_as_the_rendered_containers_do() -> None:
    margin_s = STOP_GRACE_S - int(GRACE_S)
    waits = re.findall(r"`(?:stop_grace_period: |TimeoutStopSec=|terminationGracePeriodSeconds: )(\d+)s?`", PAGE)

    assert [int(wait) for wait in waits] == [60 + margin_s] * 3
    assert f"plan {margin_s} s more than the grace" in PAGE
    assert f"the {GRACE_S:g} s and {STOP_GRACE_S} s for every pool" in PAGE
