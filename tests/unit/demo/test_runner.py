"""The runner: starts together, says what failed, restarts what died, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.runner import Part, Runner, StopRequest
from demo.state import DemoError, Stopped
from project.config import BASE_DIR
from tests.processes import is_alive
from tests.waiting import wait_for


def part_of(folder: Path, name: str, script: str, **more: Any) -> Part:
    return Part(name, lambda: os.execvp("sh", ("sh", "-c", script)), folder / f"{name}.log", **more)


def runner_of(report: Callable[[str], object] = print) -> Runner:
    return Runner(report, StopRequest())


def needs_file(path: Path) -> Callable[[], str]:
    return lambda: "" if path.exists() else f"no {path.name}"


def test_start_returns_when_every_part_is_ready(tmp_path: Path) -> None:
    slow = part_of(tmp_path, "slow", f"sleep 0.2; touch {tmp_path}/up; sleep 60", missing=needs_file(tmp_path / "up"))
    quick = part_of(tmp_path, "quick", "sleep 60")
    runner = runner_of()

    runner.start(slow, quick)

    assert (tmp_path / "up").exists()
    assert runner.pids == {"slow": slow.pid, "quick": quick.pid}
    runner.stop()


def test_part_that_ends_at_start_is_named_with_its_log_and_last_lines(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text("old story\n")
    runner = runner_of()

    with pytest.raises(DemoError, match=r"(?s)^web: ended with exit code 3 at start; .*web\.log.*boom") as failure:
        runner.start(part_of(tmp_path, "web", "echo boom; exit 3", missing=lambda: "no answer"))

    assert str(tmp_path / "web.log") in str(failure.value)
    assert "old story" not in str(failure.value)


def test_part_that_is_not_ready_in_time_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    part = part_of(tmp_path, "pools", "sleep 60", missing=lambda: "slow is not up", ready_timeout_s=0.1)
    runner = runner_of()

    with pytest.raises(DemoError, match=r"pools: was not ready within 0.1 s \(slow is not up\)"):
        runner.start(part)

    runner.stop()
    assert part.pid is None


def test_asking_to_stop_ends_a_start_that_waits(tmp_path: Path) -> None:
    part = part_of(tmp_path, "web", "sleep 60", missing=lambda: "no answer")
    stop = StopRequest()
    stop.set()
    runner = Runner(print, stop)

    with pytest.raises(Stopped):
        runner.start(part)

    runner.stop()
    assert part.pid is None


def test_part_that_dies_is_started_again_and_both_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    part = part_of(tmp_path, "web", "sleep 60")
    runner = runner_of(said.append)
    runner.start(part)
    first = part.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: bool(runner.restart_dead() and len(said) == 2))
    assert part.pid not in (None, first)
    assert said[0].startswith("web ended with SIGKILL; starting it again now")
    assert said[1] == "web is back"
    runner.stop()


def test_part_that_dies_again_and_again_is_started_at_growing_intervals(tmp_path: Path) -> None:
    said: list[str] = []
    part = part_of(tmp_path, "web", f"test -e {tmp_path}/once && exit 1; touch {tmp_path}/once; sleep 60")
    runner = runner_of(said.append)
    runner.start(part)
    wait_for((tmp_path / "once").exists)
    part.kill()

    wait_for(lambda: bool(runner.restart_dead() and "starting it again in 1 s" in said[-1]))
    assert not runner.restart_dead()
    runner.stop()


def test_parts_stop_last_started_first(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    on_term = "trap 'echo {name} >> {ends}; exit' TERM; echo up; while :; do sleep 0.01; done"
    broker, pools, web = (
        part_of(
            tmp_path, name, on_term.format(name=name, ends=ends),
            missing=lambda name=name: "" if (tmp_path / f"{name}.log").stat().st_size else "starting",
        )
        for name in ("broker", "pools", "web")
    )  # fmt: skip
    runner = runner_of()
    runner.start(broker)
    runner.start(pools, web)

    runner.stop()

    assert ends.read_text().split() == ["web", "pools", "broker"]
    assert runner.pids == {}


def test_part_that_ignores_the_request_to_stop_is_killed_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    log = tmp_path / "deaf.log"
    part = part_of(
        tmp_path, "deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done", stop_timeout_s=0.2,
        missing=lambda: "" if log.stat().st_size else "starting",
    )  # fmt: skip
    runner = runner_of(said.append)
    runner.start(part)

    runner.stop()

    assert part.pid is None
    assert said == [f"deaf did not end within 0.2 s: killed; its log is {log}"]


def test_parts_end_with_a_runner_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from demo.runner import Part, Runner, StopRequest\n"
        "part = Part('web', lambda: time.sleep(600), Path(sys.argv[1]) / 'web.log')\n"
        "Runner(print, StopRequest()).start(part); print(part.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=BASE_DIR
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)

        owner.kill()

    wait_for(lambda: not is_alive(pid))


def test_part_has_the_exit_code_and_the_log_of_its_job(tmp_path: Path) -> None:
    def refuse() -> None:
        os.write(1, b"refused\n")
        sys.exit(78)

    parts = [Part("pools", refuse, tmp_path / "pools.log"), Part("history", lambda: None, tmp_path / "history.log")]
    for part in parts:
        part.start()

    wait_for(lambda: all(part.exit_code() is not None for part in parts))

    assert [part.exit_code() for part in parts] == [78, 0]
    assert (tmp_path / "pools.log").read_text() == "refused\n"
    assert (tmp_path / "history.log").read_text() == ""
