"""Starts that fail: which part, why, and where its log is."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil

from project.config import BASE_DIR


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=BASE_DIR, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


def test_part_that_does_not_start_is_named_with_its_log_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").mkdir()

    done = run_demo("--state", str(tmp_path), "--no-sample")

    assert done.returncode == 1
    assert "demo: set-up: ended with exit code 1; its log is" in done.stderr
    assert str(tmp_path / "logs" / "set-up.log") in done.stderr
    assert "unable to open database file" in done.stderr
    assert "Traceback" not in done.stderr.splitlines()[0]
    assert not processes_of(tmp_path)


def test_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = run_demo("--state", str(tmp_path), "--port", port)

    assert done.returncode == 1
    assert f"demo: port {port}: address already in use; choose another with --port" in done.stderr
    assert not (tmp_path / "valkey").exists()
    assert not (tmp_path / "demo.owner.json").exists()


def test_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = run_demo("--state", str(tmp_path / "file" / "state"))

    assert done.returncode == 1
    assert "not a directory; choose one that you may write to with --state DIR" in done.stderr


def test_broken_broker_data_is_an_error_that_names_the_brokers_log(tmp_path: Path) -> None:
    manifest = tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("nonsense\n")

    done = run_demo("--state", str(tmp_path))

    assert done.returncode == 1
    assert "demo: valkey: " in done.stderr
    assert str(tmp_path / "valkey" / "valkey.log") in done.stderr


def processes_of(state: Path) -> list[str]:
    """Return the command lines of processes that have a file of the state folder open."""
    found = []
    for process in psutil.process_iter(["cmdline", "open_files"]):
        if any(Path(file.path).is_relative_to(state) for file in process.info["open_files"] or ()):
            found.append(" ".join(process.info["cmdline"] or ()))
    return found
