"""The wheel beside the newest Django, on the newest Python of this machine, with packages of the index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import Environment, uv

NEWEST, LOCK = REPOSITORY / "requirements-newest.txt", REPOSITORY / "requirements-dev.txt"
PYTHONS = ("3.13", "3.12")  # the newest Django needs the last of them
AWAY = re.compile(r"failed to fetch|request failed|sending request|connect|dns error|timed out", re.IGNORECASE)
PINNED = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?(==[^\\\n]+)", re.MULTILINE)


class LeftOut(Exception):
    """This machine has not what the newest pair needs; the text says what."""


def newest_python() -> Path:
    """Return the newest interpreter of this machine that the newest Django admits.

    Raises:
        LeftOut: there is none on PATH, nor among those of pyenv.
    """
    for version in PYTHONS:
        for candidate in _candidates(version):
            command = [candidate, "-c", "import sys; print(sys.version_info[:2], sys.executable)"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            shown, _, program = done.stdout.strip().rpartition(" ")
            if shown == f"({version.replace('.', ', ')})":  # a shim of pyenv may have no such version
                return Path(program)
    raise LeftOut(f"no Python {' or '.join(PYTHONS)} on PATH or in ~/.pyenv/versions")


def _candidates(version: str) -> Iterator[str]:
    if (on_path := shutil.which(f"python{version}")) is not None:
        yield on_path
    for folder in sorted(Path.home().glob(f".pyenv/versions/{version}.*"), reverse=True):
        yield str(folder / "bin/python")


def newest_django() -> str:
    """Return the version of the newest Django that is locked."""
    return dict(PINNED.findall(NEWEST.read_text()))["django"].strip(" =")


def install_django(python: Path, folder: Path) -> Environment:
    """Return a new environment that has the newest Django alone.

    Raises:
        LeftOut: the index of packages does not answer.
    """
    newest_uv("venv", "--quiet", "--python", python, folder)
    # Asked for again although it may be in the cache: what comes next is red when the index is away.
    locked = ("--refresh-package", "django", "--require-hashes", "-r", str(NEWEST))
    try:
        newest_uv("pip", "install", "--quiet", "--python", folder / "bin/python", *locked)
    except AssertionError as error:
        if AWAY.search(str(error)) is None:
            raise
        raise LeftOut(f"the index of packages does not answer: {str(error).strip().splitlines()[-1]}") from error
    return Environment(folder)


def install_wheel(environment: Environment, wheel: Path, *extras: str) -> None:
    """Install the wheel as a host does, with the locked versions of what it brings."""
    own = dict(PINNED.findall(NEWEST.read_text()))
    pins = [f"{name}{version}" for name, version in PINNED.findall(LOCK.read_text()) if name not in own]
    file = environment.folder / "pins.txt"
    file.write_text("\n".join(pins))
    wanted = ("--constraints", str(file), f"switchyard[{','.join(extras)}] @ {wheel.as_uri()}")
    newest_uv("pip", "install", "--quiet", "--python", environment.python, *wanted)


def newest_uv(*arguments: str | Path) -> None:
    """Run uv with the caller's settings of index, proxy and certificates."""
    foreign = ("VIRTUAL_ENV", "PYTHONPATH", "UV_OFFLINE")
    uv({name: value for name, value in os.environ.items() if name not in foreign}, *arguments)
