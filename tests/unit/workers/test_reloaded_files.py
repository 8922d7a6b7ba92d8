"""Files whose change has ``runpools --reload`` restart its pools."""

from __future__ import annotations

import os
from pathlib import Path

import apps.exports.actors
import switchyard.middleware.status
from switchyard.workers.group.autoreload import Changes, own_code


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


def test_the_projects_code_is_watched_and_no_packages() -> None:
    watched = own_code()

    for module in (apps.exports.actors, switchyard.middleware.status):
        assert Path(str(module.__file__)) in watched
    assert {path.name for path in watched if path.is_dir()} >= {"apps", "project", "switchyard"}
    assert not [path for path in watched if "site-packages" in path.parts or path.name == ".venv"]
