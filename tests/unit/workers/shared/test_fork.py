"""The end of a child: nothing between its work and its exit may raise, whatever its output is by then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from switchyard.workers import preflight

FORKS = """
import os, sys
from switchyard.workers.shared.fork import fork

def work():
    {spoil}
    return 5

_, status = os.waitpid(fork(work, title="test"), 0)
os.write(2, f"SAID ended with {{os.waitstatus_to_exitcode(status)}}".encode())
"""


def said_of(spoil: str) -> str:
    """Return what the parent of a child says, where it alone says it."""
    environment = {"DJANGO_SETTINGS_MODULE": "project.settings"}
    command = [sys.executable, "-c", FORKS.format(spoil=spoil)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    return run.stderr.partition("SAID ")[2]


@pytest.mark.parametrize(
    "spoil",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); print('into nothing')",
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1); print('nobody reads')",
        "read, write = os.pipe(); os.set_blocking(write, False); os.write(write, bytes(1 << 20)); "
        "os.set_blocking(write, True); os.dup2(write, 1); print('full')",
        "sys.stdout = None",
        "sys.stdout = object()",
    ],
)
def test_a_child_ends_with_its_code_whatever_its_output_is(spoil: str) -> None:
    assert said_of(spoil) == "ended with 5"


@pytest.mark.parametrize(("raised", "code"), [("KeyboardInterrupt", 70), ("SystemExit(4)", 4), ("ValueError", 70)])
def test_an_exception_never_leaves_a_child_into_the_code_of_its_parent(raised: str, code: int) -> None:
    assert said_of(f"raise {raised}") == f"ended with {code}"


# A socket, as below systemd, cannot be opened again without blocking.
@pytest.mark.parametrize("opens", [os.pipe, os.openpty, lambda: [end.detach() for end in socket.socketpair()]])
def test_an_output_without_room_drops_lines_and_says_so(opens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "WAIT_S", 0.01)
    reader, writer = opens()
    stream, taken = preflight.PatientOutput(writer), b""
    assert {stream.write(b"x" * 1_000 + b"\n") for _ in range(300)} == {1_001}

    while b"y" not in taken:
        taken += os.read(reader, 1 << 20)
        stream.write(b"y\n")

    assert b"lines dropped]" in taken
    os.close(reader)
    assert stream.write(b"z\n") == 2
    os.close(writer)
