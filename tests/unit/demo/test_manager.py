"""The process manager: starts together, says what failed, restarts what died, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.errors import PartFailed, Stopped
from demo.manager import ProcessManager
from demo.processes import CommandPart
from project.config import BASE_DIR
from tests.processes import is_alive
from tests.waiting import wait_for


def part_of(folder: Path, name: str, script: str, **more: object) -> CommandPart:
    return CommandPart(name, ("sh", "-c", script), os.environ, folder / f"{name}.log", **more)  # type: ignore[arg-type]


def needs_file(path: Path) -> Callable[[], str]:
    return lambda: "" if path.exists() else f"no {path.name}"


def test_start_returns_when_every_part_is_ready(tmp_path: Path) -> None:
    slow = part_of(tmp_path, "slow", f"sleep 0.2; touch {tmp_path}/up; sleep 60", readiness=needs_file(tmp_path / "up"))
    quick = part_of(tmp_path, "quick", "sleep 60")
    manager = ProcessManager(report=print)

    manager.start([slow, quick])

    assert (tmp_path / "up").exists()
    assert manager.pids == {"slow": slow.pid, "quick": quick.pid}
    manager.stop()


def test_part_that_ends_at_start_is_named_with_its_log_and_last_lines(tmp_path: Path) -> None:
    manager = ProcessManager(report=print)

    with pytest.raises(PartFailed, match=r"(?s)^web: ended with exit code 3 at start; .*web\.log.*boom") as failure:
        manager.start([part_of(tmp_path, "web", "echo boom; exit 3", readiness=lambda: "no answer")])

    assert str(tmp_path / "web.log") in str(failure.value)


def test_failure_shows_nothing_of_an_earlier_start(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text("old story\n")
    manager = ProcessManager(report=print)

    with pytest.raises(PartFailed) as failure:
        manager.start([part_of(tmp_path, "web", "echo boom; exit 3", readiness=lambda: "no answer")])

    assert "old story" not in str(failure.value)


def test_part_that_is_not_ready_in_time_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    part = part_of(tmp_path, "pools", "sleep 60", readiness=lambda: "slow is not up", ready_timeout_s=0.1)
    manager = ProcessManager(report=print)

    with pytest.raises(PartFailed, match=r"pools: was not ready within 0.1 s \(slow is not up\)"):
        manager.start([part])

    manager.stop()
    assert part.pid is None


def test_command_that_is_missing_fails_its_part(tmp_path: Path) -> None:
    part = CommandPart("web", ("/no/such/command",), {}, tmp_path / "web.log")

    with pytest.raises(PartFailed, match=r"web: .*No such file"):
        ProcessManager(report=print).start([part])


def test_asking_to_stop_ends_a_start_that_waits(tmp_path: Path) -> None:
    part = part_of(tmp_path, "web", "sleep 60", readiness=lambda: "no answer")
    manager = ProcessManager(report=print, is_stopping=lambda: True)

    with pytest.raises(Stopped):
        manager.start([part])

    manager.stop()
    assert part.pid is None


def test_run_waits_for_the_end(tmp_path: Path) -> None:
    ProcessManager(report=print).run(part_of(tmp_path, "set-up", f"sleep 0.1; touch {tmp_path}/done"))

    assert (tmp_path / "done").exists()


def test_run_that_fails_or_takes_too_long_is_said(tmp_path: Path) -> None:
    manager = ProcessManager(report=print)

    with pytest.raises(PartFailed, match="set-up: ended with exit code 2"):
        manager.run(part_of(tmp_path, "set-up", "exit 2"))
    with pytest.raises(PartFailed, match=r"set-up: did not finish within 0.1 s"):
        manager.run(part_of(tmp_path, "set-up", "sleep 60", ready_timeout_s=0.1))


def test_part_that_dies_is_started_again_and_both_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    part = part_of(tmp_path, "web", "sleep 60")
    manager = ProcessManager(report=said.append)
    manager.start([part])
    first = part.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: bool(manager.restart_dead() and len(said) == 2))
    assert part.pid not in (None, first)
    assert said[0].startswith("web ended with SIGKILL; starting it again now")
    assert said[1] == "web is back"
    manager.stop()


def test_part_that_dies_again_and_again_is_started_at_growing_intervals(tmp_path: Path) -> None:
    said: list[str] = []
    part = part_of(tmp_path, "web", f"test -e {tmp_path}/once && exit 1; touch {tmp_path}/once; sleep 60")
    manager = ProcessManager(report=said.append)
    manager.start([part])
    wait_for((tmp_path / "once").exists)
    part.kill()

    wait_for(lambda: bool(manager.restart_dead() and "starting it again in 1 s" in said[-1]))
    assert not manager.restart_dead()
    manager.stop()


def test_stages_stop_last_started_first(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    on_term = "trap 'echo {name} >> {ends}; exit' TERM; echo up; while :; do sleep 0.01; done"
    broker, pools, web = (
        part_of(
            tmp_path, name, on_term.format(name=name, ends=ends),
            readiness=lambda name=name: "" if (tmp_path / f"{name}.log").stat().st_size else "starting",
        )
        for name in ("broker", "pools", "web")
    )  # fmt: skip
    manager = ProcessManager(report=print)
    manager.start([broker])
    manager.start([pools], [web])

    manager.stop()

    assert ends.read_text().split() == ["web", "pools", "broker"]
    assert manager.pids == {}


def test_part_that_ignores_the_request_to_stop_is_killed_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    log = tmp_path / "deaf.log"
    part = part_of(
        tmp_path, "deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done", stop_timeout_s=0.2,
        readiness=lambda: "" if log.stat().st_size else "starting",
    )  # fmt: skip
    manager = ProcessManager(report=said.append)
    manager.start([part])

    manager.stop()

    assert part.pid is None
    assert said == [f"deaf did not end within 0.2 s: killed; its log is {log}"]


def test_parts_end_with_a_manager_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from demo.manager import ProcessManager; from demo.processes import CommandPart\n"
        "part = CommandPart('web', ('sleep', '600'), os.environ, Path(sys.argv[1]) / 'web.log')\n"
        "ProcessManager(report=print).start([part]); print(part.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=BASE_DIR
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)

        owner.kill()

    wait_for(lambda: not is_alive(pid))
