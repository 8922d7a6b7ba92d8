"""The state folder: one demo at a time, secrets for their owner only, the same after a restart."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from demo.state import DemoError, StateFolder, StateLock, Stopped, load_identity, read_private, write_private
from project.config import BASE_DIR


def never() -> bool:
    return False


def folder_at(path: Path) -> StateFolder:
    state = StateFolder(path / "state")
    state.make()
    return state


def test_second_demo_on_a_folder_is_told_who_runs_the_first_and_how_to_start_beside_it(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    first = StateLock(state)
    first.acquire(is_stopping=never)
    first.announce("http://127.0.0.1:8000/")

    with pytest.raises(DemoError) as refusal:
        StateLock(state).acquire(is_stopping=never)

    said = str(refusal.value)
    assert str(state.root) in said
    assert f"process {os.getpid()}, http://127.0.0.1:8000/" in said
    assert "bin/demo --state DIR" in said
    first.release()


def test_processes_that_a_killed_demo_left_are_waited_for(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    program = (
        "import sys, subprocess; from pathlib import Path; from demo.state import StateFolder, StateLock\n"
        "lock = StateLock(StateFolder(Path(sys.argv[1]))); lock.acquire(is_stopping=lambda: False)\n"
        "subprocess.Popen(['sleep', '0.5'], close_fds=False); import os; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(state.root)], cwd=BASE_DIR, check=False)
    lock = StateLock(state)
    with pytest.raises(DemoError, match="processes of a demo that was killed"):
        lock.acquire(is_stopping=never, timeout_s=0.05)

    lock.acquire(is_stopping=never)

    lock.release()


def test_waiting_for_a_folder_ends_when_somebody_asks_to_stop(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    first = StateLock(state)
    first.acquire(is_stopping=never)
    write_private(state.owner, {"pid": 0})

    with pytest.raises(Stopped):
        StateLock(state).acquire(is_stopping=lambda: True)

    first.release()


def test_folder_and_its_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    load_identity(state.identity).save(state.identity)

    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.identity.stat().st_mode) == 0o600


def test_what_is_ours_in_a_folder_that_others_can_look_into_is_closed_to_them(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.root.mkdir(mode=0o755)
    state.mailbox.mkdir(mode=0o755)
    state.database.touch(mode=0o644)

    state.make()

    ours = (state.logs, state.metrics, state.media, state.mailbox, state.database, state.lock)
    assert [path.name for path in ours if path.stat().st_mode & 0o077] == []


def test_identity_stays_the_same_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    first = replace(load_identity(path), broker_port=1234, smtp_port=2345, receiver_port=3456)
    first.save(path)

    assert load_identity(path) == first
    assert len({first.django_secret_key, first.payment_secret, first.admin_password}) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"django_secret_key": "", "broker_port": "1"}'])
def test_identity_that_cannot_be_used_is_made_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(content)

    made = load_identity(path)

    assert len(made.django_secret_key) >= 32
    assert made.broker_port == 0


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    write_private(path, {"a": 1})

    with pytest.raises(TypeError):
        write_private(path, {"a": object()})

    assert read_private(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.json"]
