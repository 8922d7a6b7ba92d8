"""The core in a copy of this repository without any add-on: it works, and no test of its own needs one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.documentation.pages import ROOT

ADDONS = ("switchyard/addons/", "tests/addons/")


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if not name.startswith(ADDONS) and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a module of Python in a folder; print what it printed unless it ended well, and return its failures."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=-1, stderr=-2, text=True, check=False
    )
    if not done.returncode:
        return ""
    print(done.stdout)
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))) or "failed"


# By default `tests/unit/platform/test_core_words.py` reads their imports: here pytest compiles every test anew.
@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_test_of_the_core_is_collected(core):
    assert run(core, "pytest", "--collect-only", "tests") == ""


def test_an_address_of_an_add_on_is_refused_with_the_known_ones(core):
    environment = {**os.environ, "SWITCHYARD_BROKER_URL": "amqp://127.0.0.1/"}
    command = [sys.executable, "manage.py", "check"]

    done = subprocess.run(command, cwd=core, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 78
    assert "SWITCHYARD_BROKER_URL: scheme 'amqp' is not one of redis, rediss, unix, " in done.stderr


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_unit_and_broker_tests_pass(core):
    folders = ("tests/unit", "tests/integration/broker", "tests/integration/queues")

    # Of the budget: its ceilings are those of the whole repository.
    assert run(core, "pytest", "-m", "not long", "--ignore=tests/unit/test_budget.py", *folders) == ""
