"""Environments that hold the built wheel, its dependencies and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from project.config import BASE_DIR as REPOSITORY

AWAY = re.compile(r"failed to fetch|request failed|sending request|connect|dns error|timed out", re.IGNORECASE)
# Variables of this test run, which a host project knows nothing of.
OWN_VARIABLES = (
    *("SWITCHYARD_", "DJANGO_", "DATABASE_URL", "PROMETHEUS_", "PYTEST_", "TEST_DATABASE", "PYTHONPATH"),
    *("PIP_", "UV_", "VIRTUAL_ENV"),
    "PYTHONDONTWRITEBYTECODE",  # each start would compile every package again: the installers leave that to the first
)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment variables without those of the test run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    return kept | variables


def run(*command: str | Path, cwd: Path, environment: dict[str, str], timeout_s: float = 400, code: int = 0) -> str:
    """Run a command, and return what it printed.

    Raises:
        AssertionError: it ended with another exit code.
    """
    shown = " ".join(str(word)[:80] for word in command)
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{shown} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def uv(*arguments: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run uv of this test run, by default with the caller's settings of index, proxy and certificates.

    Raises:
        AssertionError: it failed, with its words; :data:`AWAY` finds those of an index that does not answer.
    """
    if environment is None:
        foreign = ("VIRTUAL_ENV", "PYTHONPATH", "UV_OFFLINE")
        environment = {name: value for name, value in os.environ.items() if name not in foreign}
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    run(str(program), *arguments, cwd=REPOSITORY, environment=environment)


@dataclass(frozen=True)
class Index:
    """The folder of wheels that environments are made from.

    Args:
        wheel: The wheel under test.
        wheels: Folder with the wheels of everything it needs.
        cache: Folder for uv's cache.
    """

    wheel: Path
    wheels: Path
    cache: Path

    def make(self, folder: Path, *extras: str, beside: tuple[str, ...] = ()) -> Environment:
        """Return a new environment with the wheel, some of its extras and some other packages."""
        offline = clean_environment(UV_CACHE_DIR=str(self.cache), UV_OFFLINE="1", UV_NO_CONFIG="1")
        uv("venv", "--quiet", "--python", sys.executable, folder, environment=offline)
        wanted = f"switchyard[{','.join(extras)}] @ {self.wheel.as_uri()}"
        source = ("--no-index", "--find-links", self.wheels)
        python = folder / "bin/python"
        uv("pip", "install", "--quiet", "--python", python, *source, wanted, *beside, environment=offline)
        return Environment(folder)


@dataclass(frozen=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def run(self, *arguments: str | Path, cwd: Path, code: int = 0, **variables: str) -> str:
        environment = clean_environment(**variables)
        environment["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}"
        return run(self.python, *arguments, cwd=cwd, environment=environment, code=code)
