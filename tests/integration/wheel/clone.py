"""A folder that is this repository to ``bin/package``: links to its files, and an environment that is ready."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import run

MADE_HERE = ("dist", "staticfiles", "var")


def link_clone(folder: Path) -> Path:
    """Return the folder, filled. Its ``.venv`` is that of this test run, so that nothing is installed."""
    folder.mkdir(parents=True)
    for entry in REPOSITORY.iterdir():
        if not entry.name.startswith(".") and entry.name not in MADE_HERE:
            (folder / entry.name).symlink_to(entry)
    environment = folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    stamp = ("bash", "-c", ". bin/environment.sh && environment_stamp dev")
    (environment / ".dev").write_text(run(*stamp, cwd=folder, environment=dict(os.environ)))
    return folder
