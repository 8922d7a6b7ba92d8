"""The demo's runner: starts together, restarts what died, leaves nothing behind; its lines, ports and environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import addresses
from demo.addresses import Addresses, PortTaken, as_exports, settings_for, without_settings
from demo.job_lines import MOST_LINES, JobLines
from demo.runner import Part, Runner, StopRequest
from demo.state import DemoError, StateFolder, Stopped, load_identity, write_private_text
from project.config import BASE_DIR
from project.config import load as load_config
from tests.processes import is_alive
from tests.waiting import wait_for

AT = "2026-11-21T10:48:11.514869Z"
ADDRESSES = Addresses(web_port=8001, smtp_port=8002, receiver_port=8003, broker_url="redis://127.0.0.1:8004/0")


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


def line(event: str, job_id: str = "7", **fields: object) -> str:
    """Return a line as ``middleware.logs`` writes it for a terminal."""
    shown = " ".join(f"{name}={value}" for name, value in {"actor": "greet", **fields, "job_id": job_id}.items())
    return f"{AT} [info     ] {event:30} [switchyard.jobs] {shown} queue=default\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "pools.log"
    log.write_text(line("succeeded", "of a run before"))
    return log


def news(log: Path, *texts: str, sample: str = "") -> list[str]:
    """Return what the demo says of lines that are added."""
    said: list[str] = []
    lines = JobLines(log, said.append)
    with log.open("a") as file:
        file.writelines(texts)
    lines.read([sample])
    return said


def test_each_end_of_an_attempt_is_shown(log: Path) -> None:
    retried = line("retried", "7", duration_ms=3, error="\"'missing'\"", raised="KeyError")

    shown = news(log, retried, line("succeeded", "7", duration_ms=1960), line("dead", "8", reason="permanent"))

    assert shown == [
        "greet 7: retried in 3 ms (KeyError missing)",
        "greet 7: succeeded in 1,960 ms",
        "greet 8: dead (permanent)",
    ]


def test_jobs_of_the_sample_and_other_lines_are_left_out(log: Path) -> None:
    other = f"{AT} [info     ] counted 3 of 4                 [apps.loyalty] actor=greet job_id=9\n"

    assert news(log, line("succeeded", "7"), other, "a print()\n", sample="7") == []


def test_a_parked_job_a_reload_and_a_refusal_are_shown(log: Path) -> None:
    shown = news(
        log,
        f"{AT} [warning  ] parked until a worker knows it (logged once a minute) [m.parking] actor=x job_id=1\n",
        f"{AT} [error    ] reload: the pools ended with 1; they start again when a file changes [switchyard.workers]\n",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)\n",
    )

    assert shown == [
        "x 1: parked until a worker knows it",
        "reload: the pools ended with 1; they start again when a file changes",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)",
    ]


def test_a_burst_is_summed_up_with_the_name_of_the_log(log: Path) -> None:
    shown = news(log, *(line("succeeded", str(number)) for number in range(MOST_LINES + 5)))

    assert len(shown) == MOST_LINES + 1
    assert shown[-1] == f"and 5 more, see {log}"


def test_a_log_that_is_missing_or_made_anew_is_read_from_its_start(log: Path) -> None:
    said: list[str] = []
    lines = JobLines(log, said.append)
    log.unlink()
    lines.read()
    log.write_text(line("succeeded", "3")[:-1])
    lines.read()
    with log.open("a") as file:
        file.write("\n")
    lines.read()

    assert said == ["greet 3: succeeded"]


def test_children_reach_exactly_the_demos_own_parts(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "none")

    config = load_config(settings_for(StateFolder(tmp_path), identity, ADDRESSES))

    assert config.allowed_private_addresses == {("127.0.0.1", 8003)}
    assert config.library.broker_url == ADDRESSES.broker_url
    assert config.smtp_url == "smtp://127.0.0.1:8002"
    assert config.library.public_url == "http://127.0.0.1:8001"
    assert config.payment_secret == identity.payment_secret
    assert config.secret_key == identity.django_secret_key
    assert config.library.alert_urls == ("log:", "mailto:operations@switchyard.example")
    assert config.database_url == f"sqlite:///{tmp_path}/db.sqlite3"
    assert config.storage.folder == f"{tmp_path}/media"
    assert config.library.state_dir == tmp_path


def test_a_shell_takes_the_settings_over(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    write_private_text(file, as_exports({"A": "it's $HOME", "B": "log: mailto:x"}))

    ran = subprocess.run(["sh", "-c", f'. {file}; printf \'%s|%s\' "$A" "$B"'], capture_output=True, text=True)

    assert ran.stdout == "it's $HOME|log: mailto:x"
    assert file.stat().st_mode & 0o777 == 0o600


def test_settings_of_another_yard_do_not_leak_in() -> None:
    base = {"PATH": "/bin", "DJANGO_DEBUG": "0", "SWITCHYARD_METRICS_TOKEN": "x", "DATABASE_URL": "postgres://other"}

    assert without_settings(base) == {"PATH": "/bin"}


def test_retries_are_hurried_here_and_not_in_the_projects_settings() -> None:
    code = "from demo.settings import SWITCHYARD as a; from project.settings import SWITCHYARD as b; "
    code += "print(a.topology.retry_speed, b.topology.retry_speed)"

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(addresses.RETRY_SPEED), "1"]


def test_another_terminal_needs_no_more_than_the_state_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)

    config = load_config({"SWITCHYARD_STATE_DIR": str(tmp_path)})

    assert config.library.broker_url == f"unix://{state.broker_socket}"
    assert config.database_url == f"sqlite:///{state.database}"
    assert config.storage.folder == str(state.media)


def test_port_that_is_taken_is_refused_with_the_way_out() -> None:
    with addresses.listen(0) as taken, pytest.raises(PortTaken, match="--port"):
        addresses.listen(addresses.port_of(taken))


def test_next_free_port_follows_one_that_is_taken() -> None:
    with addresses.listen(0) as taken:
        first = addresses.port_of(taken)

        with addresses.listen_near(first) as found:
            assert first < addresses.port_of(found) <= first + addresses.NEXT_PORTS


def test_port_of_last_time_is_taken_again_where_it_is_free() -> None:
    with addresses.listen(0) as last:
        port = addresses.port_of(last)
    with addresses.listen_near(port, next_ports=1) as again, addresses.listen_near(port, next_ports=1) as other:
        assert addresses.port_of(again) == port
        assert addresses.port_of(other) != port


def test_port_for_a_server_that_chooses_itself_is_zero_when_taken() -> None:
    with addresses.listen(0) as taken:
        port = addresses.port_of(taken)

        assert addresses.free_again(port) == 0
    assert addresses.free_again(port) == port
    assert addresses.free_again(0) == 0
