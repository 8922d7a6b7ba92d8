"""A folder that is this repository to ``bin/package``: links to its files, and an environment that is ready."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from devtools.wheel.__main__ import REPOSITORY


def link_clone(folder: Path) -> Path:
    """Return the folder, filled. Its ``.venv`` is that of this test run, so that nothing is installed."""
    folder.mkdir(parents=True)
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in sorted({line.partition("/")[0] for line in tracked.splitlines()}):
        (folder / name).symlink_to(REPOSITORY / name)
    environment = folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    stamp = subprocess.run(
        ["bash", "-c", ". bin/environment.sh && environment_stamp dev"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (environment / ".dev").write_text(stamp.stdout)
    return folder
