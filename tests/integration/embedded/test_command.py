"""``python -m switchyard.embedded``: the broker of a developer's machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from project.config import BASE_DIR
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import free_port

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


def test_port_in_use_is_said(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, str(tmp_path / "a"), "--port", str(port := free_port())],
        cwd=BASE_DIR,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = subprocess.run(
            [*COMMAND, str(tmp_path / "b"), "--port", str(port)],
            cwd=BASE_DIR,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        first.send_signal(signal.SIGINT)

        assert first.wait(60) == 0
    assert second.returncode == 1
    assert "in use" in second.stderr


def test_second_command_on_a_folder_says_at_once_that_it_waits_and_then_starts(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with subprocess.Popen(
            [*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout is not None and second.stderr is not None
            said = second.stderr.readline()
            assert first.poll() is None
            first.send_signal(signal.SIGTERM)
            ready = second.stdout.readline()
            second.send_signal(signal.SIGTERM)

            assert second.wait(60) == 0
    assert re.fullmatch(rf"another server uses {tmp_path}/valkey: waiting up to (29|30) s for its end\n", said)
    assert ready.startswith("ready: ")


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")

    done = subprocess.run([*COMMAND, str(tmp_path / "var")], cwd=BASE_DIR, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr == (
        f"embedded Valkey in {tmp_path}/var/valkey: the folder cannot be created: not a directory; "
        "name one that this user may write to\n"
    )
