"""``bin/`` and ``manage.py`` say what is missing; ``bin/test`` runs what failed beside other tests again, alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from django.conf import settings

from tests.conftest import EXACT, TESTS
from tests.runner.lanes import Lanes, Run
from tests.runner.parts import OPTIONAL

SCRIPT = settings.BASE_DIR / "bin/environment.sh"
REAL = Path(sys.executable).resolve()
MANAGE = settings.BASE_DIR / "manage.py"
BROKER = "tests/integration/broker/"
PATHS = (
    *(f"{BROKER}{file}.py" for file in ("conformance/test_letters", "redis/test_sentinel", "redis/test_tls")),
    "tests/integration/doctor/test_server.py",
)
REDIS_FILES = ("test_sentinel.py", "test_tls.py")


@pytest.fixture(scope="module")  # it takes 10 s of processor time to make an environment
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-dev.txt").write_text("# nothing either\n")
    return folder


def prepare(
    clone: Path, kind: str = "runtime", *, own_session: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'. "{SCRIPT}" && prepare_environment {kind}']
    options = {"env": os.environ | environment, "start_new_session": own_session}
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.long
def test_environment_is_made_once_and_changed_only_for_another_lock(clone):
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
    assert "no-such-package-at-all" in fourth.stderr and "var/environment.log" in fourth.stderr


def test_an_interrupted_install_says_so_and_the_next_call_goes_on(clone):
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
def test_call_of_bin_test_explains_itself(arguments, code, words):
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


def test_an_interpreter_without_packages_is_told_of_the_environment():
    code, said = manage("-S")

    assert code == 1
    assert said.startswith(f"manage.py: Python at {sys.executable} has no Django; write .venv/bin/python manage.py")
    assert "Traceback" not in said


def test_a_package_that_is_missing_is_followed_by_what_installs_it(tmp_path):
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
def test_all_and_only_the_tests_that_start_the_program_are_left_out():
    everything = collected("")

    without_redis = collected("redis-server promtool")

    assert everything - without_redis == {name for name in everything if needs_redis(name)}
    assert any(name.endswith("[atomic]") for name in without_redis)


PLAIN = "def test_plain():\n    pass\n"
RED = "def test_red():\n    assert False\n"
UNSTEADY = """
from pathlib import Path
import pytest
{mark}
@pytest.mark.parametrize("name", {names})
def test_once(name):
    noted = Path("red-" + name)
    if not noted.exists():
        noted.touch()
        raise AssertionError("the machine is busy")
"""


def unsteady(*names: str, mark: str = "") -> str:
    return UNSTEADY.format(names=names, mark=mark)


def run(tree: Path, capfd: pytest.CaptureFixture[str], **files: str) -> tuple[bool, str]:
    """Run files beside each other in a tree of their own; return whether all is well, and what was printed."""
    (tree / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:cacheprovider\nmarkers = exact\n")
    for name, text in files.items():
        (tree / f"test_{name}.py").write_text(text)
    (tree / "logs").mkdir()
    environment = {"PYTHONPATH": str(settings.BASE_DIR), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    lanes = Lanes(tree, tree / "logs", os.environ | environment)
    for future in lanes.start([Run(name, (f"test_{name}.py",)) for name in files]):
        future.result()
    lanes.run_failed_again()
    return lanes.print_totals(), capfd.readouterr().out


def test_one_that_fails_once_is_unsteady_and_its_log_is_kept(tmp_path, capfd):
    well, printed = run(tmp_path, capfd, plain=PLAIN, once=unsteady("a b[::]"))

    *_, total, last = printed.splitlines()
    assert well and "UNSTEADY  test_once.py::test_once[a b[::]]" in printed
    assert "the machine is busy" in (tmp_path / "logs/once.log").read_text()
    assert (total, last) == ("2 passed, 0 failed", "2 passed, 0 failed, 0 skipped; 1 unsteady")


@pytest.mark.parametrize(
    ("files", "passed"),
    [({"plain": PLAIN, "red": RED}, 1), ({"once": unsteady("a", mark="@pytest.mark.exact")}, 0)],
    ids=["alone as well", "exact, and not run again"],
)
def test_one_that_fails_alone_as_well_or_is_exact_is_red(files, passed, tmp_path, capfd):
    well, printed = run(tmp_path, capfd, **files)

    assert not well and "UNSTEADY" not in printed
    assert printed.endswith(f"{passed} passed, 1 failed, 0 skipped; 0 unsteady\n")


def test_a_part_that_skips_all_tests_is_left_out_with_why(tmp_path, capfd):
    skipped = "import pytest\ndef test_skipped():\n    pytest.skip('no server here')\n"

    well, printed = run(tmp_path, capfd, nothing=skipped, some=skipped + PLAIN)

    assert well
    assert re.search(r"^  left out  nothing +[\d.]+ s  no server here$", printed, re.MULTILINE)
    assert re.search(r"^  ok        some +[\d.]+ s  1 passed$", printed, re.MULTILINE)
    assert printed.endswith("1 passed, 0 failed, 2 skipped; 0 unsteady\n")


def test_many_unsteady_fail(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("tests.runner.lanes.MOST_UNSTEADY", 1)
    well, printed = run(tmp_path, capfd, once=unsteady("a", "b"))

    assert not well and "2 tests are unsteady, more than 1" in printed
    assert printed.endswith("2 passed, 0 failed, 0 skipped; 2 unsteady\n")


@pytest.mark.parametrize(
    "text",
    [
        "import os\ndef test_exits():\n    os._exit(0)\n",
        "import no_such_module\n",
        f"{RED}\nimport os\ndef test_two():\n    os._exit(1)\n",
    ],
    ids=["pytest ends", "import fails", "pytest ends after a failure"],
)
def test_pytest_that_cannot_run_its_tests_is_red(text, tmp_path, capfd):
    well, printed = run(tmp_path, capfd, broken=text, plain=PLAIN)

    assert not well and "1 passed, 0 failed" not in printed


def test_every_folder_and_file_of_the_exact_tests_is_there():
    present = {part for path in TESTS.rglob("test_*.py") for part in path.relative_to(TESTS).parts}

    assert EXACT - present == set()


def test_the_workflow_runs_each_part_that_it_leaves_out():
    workflow = yaml.safe_load((settings.BASE_DIR / ".github/workflows/test.yml").read_text())

    assert set(workflow["jobs"]["part"]["strategy"]["matrix"]["part"]) == set(OPTIONAL)
