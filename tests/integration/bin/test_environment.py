"""``bin/environment.sh``: makes the virtual environment, once, and says what to do when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

SCRIPT = settings.BASE_DIR / "bin/environment.sh"
REAL = Path(sys.executable).resolve()


@pytest.fixture(scope="module")  # it takes 10 s of processor time to make an environment
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with locks that ask for nothing."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-dev.txt").write_text("# nothing either\n")
    return folder


def prepare(
    clone: Path, kind: str = "runtime", *, own_session: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'. "{SCRIPT}" && prepare_environment {kind}']
    return subprocess.run(
        command, cwd=clone, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
        start_new_session=own_session,
    )  # fmt: skip


@pytest.mark.long
def test_environment_is_made_once_and_changed_only_for_another_lock(clone: Path) -> None:
    first = prepare(clone, PYTHON=str(REAL))
    second = prepare(clone)
    (clone / "requirements.txt").write_text("# another lock\n")
    third = prepare(clone)
    (clone / "requirements.txt").write_text("no-such-package-at-all==1.0 --hash=sha256:" + "0" * 64 + "\n")
    fourth = prepare(clone, PIP_NO_INDEX="1")

    assert [run.returncode for run in (first, second, third)] == [0, 0, 0], first.stderr + third.stderr
    assert "installing the pinned packages of requirements.txt" in first.stderr
    assert second.stderr == ""
    assert "installing the pinned packages of requirements.txt" in third.stderr
    assert fourth.returncode == 1
    assert "no-such-package-at-all" in fourth.stderr
    assert "var/environment.log" in fourth.stderr


def test_an_interrupted_install_says_so_and_the_next_call_goes_on(clone: Path) -> None:
    (clone / "requirements.txt").write_text("# one lock\n")
    prepare(clone, PYTHON=str(REAL))
    (clone / "requirements.txt").write_text("# another lock\n")
    python = clone / ".venv/bin/python"
    real = python.with_name("real-python")
    python.rename(real)
    # As pip: it ends by itself after Ctrl-C, which the shell gets as well.
    python.write_text(
        f'#!/bin/bash\ncase "$*" in *install*) trap "exit 1" INT; kill -INT 0; sleep 60; esac\nexec {real} "$@"\n'
    )
    python.chmod(0o755)

    done = prepare(clone, own_session=True)
    real.rename(python)
    again = prepare(clone)

    assert "interrupted; run this again to go on" in done.stderr
    assert "check the network" not in done.stderr
    assert done.returncode != 0
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "--without NAME"),
        (["--without"], 2, "--without: expected one argument"),
        (["--part", "some"], 2, "--part: invalid choice"),
    ],
)
def test_call_of_bin_test_explains_itself(arguments: list[str], code: int, words: str) -> None:
    command = [str(settings.BASE_DIR / "bin/test"), *arguments]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == code
    assert words in done.stdout + done.stderr
