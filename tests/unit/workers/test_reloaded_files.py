"""Files whose change has ``runpools --reload`` restart its pools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import apps.exports.actors
import switchyard.middleware.status
from project.config import BASE_DIR
from switchyard.workers.group.autoreload import Changes, own_code
from switchyard.workers.shared.fork import import_path


def test_written_new_and_deleted_files_are_changes_and_others_are_none(tmp_path: Path) -> None:
    folder, alone = tmp_path / "package", tmp_path / "alone.py"
    written, deleted, new = (folder / f"{name}.py" for name in ("written", "deleted", "new"))
    (folder / "below").mkdir(parents=True)
    for path in (written, deleted, alone, folder / "below" / "same.py", folder / "notes.txt"):
        path.touch()
    changes = Changes([folder, alone])

    os.utime(written, ns=(1, 1))
    os.utime(alone, ns=(1, 1))
    os.utime(folder / "notes.txt", ns=(1, 1))
    deleted.unlink()
    new.touch()

    assert changes.poll() == {written, alone, deleted, new}
    assert changes.poll() == set()


def test_a_folder_that_goes_away_while_it_is_looked_at_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "package" / "gone"
    gone.mkdir(parents=True)
    (gone / "module.py").touch()
    changes = Changes([tmp_path / "package"])
    scan = os.scandir

    def scandir(folder: str | os.PathLike[str]) -> Any:
        if os.fspath(folder) == str(gone) and gone.is_dir():
            (gone / "module.py").unlink()
            gone.rmdir()
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)

    assert changes.poll() == {gone / "module.py"}


def test_a_new_interpreter_finds_what_this_one_was_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apps").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "apps")  # as the manage.py of many a project does
    folders = import_path().split(os.pathsep)

    assert {str(BASE_DIR), str(tmp_path / "apps")} <= set(folders)
    assert [folder for folder in folders if "lib/python3" in folder] == []


def test_the_projects_code_is_watched_and_no_packages() -> None:
    watched = own_code()

    for module in (apps.exports.actors, switchyard.middleware.status):
        assert Path(str(module.__file__)) in watched
    assert {path.name for path in watched if path.is_dir()} >= {"apps", "project", "switchyard"}
    assert not [path for path in watched if "site-packages" in path.parts or path.name == ".venv"]
