"""``bin/environment.sh``, ``bin/test --without`` and ``manage.py`` say what to do where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

SCRIPT = settings.BASE_DIR / "bin/environment.sh"
REAL = Path(sys.executable).resolve()
MANAGE = settings.BASE_DIR / "manage.py"
BROKER = "tests/integration/broker/"
PATHS = (
    f"{BROKER}conformance/test_letters.py",
    f"{BROKER}redis/test_sentinel.py",
    f"{BROKER}redis/test_tls.py",
    "tests/integration/doctor/test_server.py",
)
REDIS_FILES = ("test_sentinel.py", "test_tls.py")


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


def manage(*python: str, **variables: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [sys.executable, *python, str(MANAGE), "check"]
    done = subprocess.run(command, cwd=MANAGE.parent, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def check_with(settings_text: str, folder: Path) -> tuple[int, str]:
    (folder / "wrong.py").write_text(settings_text)
    return manage(DJANGO_SETTINGS_MODULE="wrong", PYTHONPATH=str(folder), SWITCHYARD_STATE_DIR=str(folder))


def test_an_interpreter_without_packages_is_told_of_the_environment() -> None:
    code, said = manage("-S")

    assert code == 1
    assert said.startswith(f"manage.py: Python at {sys.executable} has no Django; write .venv/bin/python manage.py")
    assert "Traceback" not in said


def test_a_package_that_is_missing_is_followed_by_what_installs_it(tmp_path: Path) -> None:
    code, said = check_with('INSTALLED_APPS = ["nopackage"]\n', tmp_path)

    assert code == 1
    assert "ModuleNotFoundError: No module named 'nopackage'" in said
    assert "after a pull, run bin/demo, which installs requirements.txt again" in said


def collected(without: str) -> set[str]:
    """Return the ids of the tests that a run without some programs has."""
    command = [Path(sys.executable).with_name("pytest"), "--collect-only", *PATHS]
    own = {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in own} | {"TEST_WITHOUT": without}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, cwd=settings.BASE_DIR, env=environment
    )
    return {line for line in done.stdout.splitlines() if "::" in line}


def needs_redis(name: str) -> bool:
    file, _, rest = name.partition("::")
    return (
        file.endswith(REDIS_FILES) or rest.endswith(("[tls]", "[redis]")) * (BROKER in file) or "[redis-server" in rest
    )


@pytest.mark.needs()
def test_all_and_only_the_tests_that_start_the_program_are_left_out() -> None:
    everything = collected("")

    without_redis = collected("redis-server promtool")

    assert everything - without_redis == {name for name in everything if needs_redis(name)}
    assert any(name.endswith("[atomic]") for name in without_redis)
