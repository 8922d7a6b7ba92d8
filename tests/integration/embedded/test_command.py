"""``python -m switchyard.embedded``: the broker of a developer's machine."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from project.config import BASE_DIR
from switchyard.broker.redis.connections import connect

COMMAND = (sys.executable, "-m", "switchyard.embedded")


def test_server_is_where_development_looks_for_it_and_ends_with_a_signal(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        client = connect(f"unix://{tmp_path}/valkey.sock")
        client.set("kept", "1")
        client.close()
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0
        assert ready.startswith(f"ready: unix://{tmp_path}/valkey.sock")
    assert (tmp_path / "valkey" / "appendonlydir").is_dir()


def test_killed_server_ends_the_command_with_the_place_of_its_log(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        client = connect(f"unix://{tmp_path}/valkey.sock")
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
        client.close()

        assert process.wait(60) == 1
        assert "valkey.log" in process.stderr.read()


def test_a_signal_ends_the_wait_for_another_server(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    with (tmp_path / "valkey" / "valkey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([*COMMAND, str(tmp_path)], cwd=BASE_DIR, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "another server uses" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0  # of the 30 s that it would wait


def test_port_that_there_is_not_is_a_wrong_call(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path), "--port", "70000"]

    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, timeout=60)

    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")

    done = subprocess.run([*COMMAND, str(tmp_path / "var")], cwd=BASE_DIR, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr == (
        f"embedded Valkey in {tmp_path}/var/valkey: the folder cannot be created: not a directory; "
        "name one that this user may write to\n"
    )
