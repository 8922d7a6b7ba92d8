"""``bin/test`` runs what failed beside other tests again, alone and twice; it fails for what is red there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from django.conf import settings

from tests.conftest import EXACT, TESTS
from tests.runner.lanes import Lanes, Run
from tests.runner.parts import OPTIONAL

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


def test_one_that_fails_once_is_unsteady_and_its_log_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    well, printed = run(tmp_path, capfd, plain=PLAIN, once=unsteady("a b[::]"))

    *_, total, last = printed.splitlines()
    assert well
    assert "UNSTEADY  test_once.py::test_once[a b[::]]" in printed
    assert "the machine is busy" in (tmp_path / "logs/once.log").read_text()
    assert (total, last) == ("2 passed, 0 failed", "2 passed, 0 failed, 0 skipped; 1 unsteady")


def test_one_that_fails_alone_as_well_is_red(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    well, printed = run(tmp_path, capfd, plain=PLAIN, red=RED)

    assert not well
    assert printed.endswith("1 passed, 1 failed, 0 skipped; 0 unsteady\n")


def test_an_exact_one_is_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    well, printed = run(tmp_path, capfd, once=unsteady("a", mark="@pytest.mark.exact"))

    assert not well
    assert "UNSTEADY" not in printed
    assert printed.endswith("0 passed, 1 failed, 0 skipped; 0 unsteady\n")


def test_a_part_that_skips_all_its_tests_is_left_out_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    skipped = "import pytest\ndef test_skipped():\n    pytest.skip('no server here')\n"

    well, printed = run(tmp_path, capfd, nothing=skipped, some=skipped + PLAIN)

    assert well
    assert re.search(r"^  left out  nothing +[\d.]+ s  no server here$", printed, re.MULTILINE)
    assert re.search(r"^  ok        some +[\d.]+ s  1 passed$", printed, re.MULTILINE)
    assert printed.endswith("1 passed, 0 failed, 2 skipped; 0 unsteady\n")


def test_too_many_unsteady_ones_are_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.runner.lanes.MOST_UNSTEADY", 1)
    well, printed = run(tmp_path, capfd, once=unsteady("a", "b"))

    assert not well
    assert "2 tests are unsteady, more than 1" in printed
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
def test_pytest_that_cannot_run_its_tests_is_red(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    well, printed = run(tmp_path, capfd, broken=text, plain=PLAIN)

    assert not well
    assert "1 passed, 0 failed" not in printed


def test_every_folder_and_file_of_the_exact_tests_is_there() -> None:
    present = {part for path in TESTS.rglob("test_*.py") for part in path.relative_to(TESTS).parts}

    assert EXACT - present == set()


def test_the_workflow_runs_each_part_that_it_leaves_out() -> None:
    workflow = yaml.safe_load((settings.BASE_DIR / ".github/workflows/test.yml").read_text())

    assert set(workflow["jobs"]["part"]["strategy"]["matrix"]["part"]) == set(OPTIONAL)
