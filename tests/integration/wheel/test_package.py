"""``bin/package``: one command, one small wheel."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import switchyard
from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import clean_environment, run

pytestmark = pytest.mark.timeout(900)  # builds, installs and starts processes, beside other tests

FOLDERS = {"middleware": "switchyard/middleware", "switchyard": "switchyard"}


def test_command_prints_the_path_of_the_wheel(clone: Path, wheel: Path) -> None:
    assert wheel == clone / f"dist/switchyard-{switchyard.__version__}-py3-none-any.whl"
    assert "bin/package [FOLDER]" in run(clone / "bin/package", "--help", cwd=clone, environment=clean_environment())


def test_wheel_is_small(wheel: Path) -> None:
    # 1.51 MB, of which 0.13 are the room's two fonts, which no compression makes smaller.
    assert wheel.stat().st_size < 1_600_000


def test_wheel_holds_every_file_of_its_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{new}/{file.relative_to(REPOSITORY / old)}"
        for old, new in FOLDERS.items()
        for file in (REPOSITORY / old).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    metadata = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert metadata == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
