"""``python -m devtools.wheel [FOLDER]``: build the wheel without network; see ``bin/package``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from devtools.wheel.tree import WheelRefused

REPOSITORY = Path(__file__).absolute().parents[2]


def build(folder: Path) -> Path:
    """Build the wheel into a folder, which is made when missing, and return its path.

    Raises:
        WheelRefused: see :func:`devtools.wheel.tree.write_package`.
    """
    [path] = WheelBuilder(str(REPOSITORY)).build(directory=str(folder.resolve()), versions=["standard"])
    return Path(path)


def main() -> int:
    """Build, print the path, and return the exit code: 0, or 1 when the wheel was refused."""
    parser = argparse.ArgumentParser(prog="bin/package", description="Build the wheel `switchyard` and print its path.")
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "dist", help="default dist/")
    folder: Path = parser.parse_args().folder
    try:
        print(build(folder))  # noqa: T201
    except WheelRefused as refused:
        print(refused, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
