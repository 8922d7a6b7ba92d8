"""A project with the files of some pages, on this repository's packages: as it was before, and as it comes after."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.wheel.environments import clean_environment, run
from tests.integration.wheel.hosts import write_host
from tests.unit.documentation.pages import ROOT, code_blocks, read

SETTINGS = """
INSTALLED_APPS += {apps}
MIDDLEWARE += ["switchyard.api.middleware.problem_documents"]
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
"""
NAMED = re.compile(r"# (\S+\.py)(?:, ([\w ]+))?\n")


@dataclass(frozen=True)
class Page:
    """The Python files of a page.

    Args:
        before: As the other system has them; path -> text.
        after: As they are at the end.
        others: Blocks with another remark behind the path.
    """

    before: dict[str, str]
    after: dict[str, str]
    others: dict[tuple[str, str], str]


def page(path: str) -> Page:
    """Return the files of a page; each block begins with the name of its file."""
    found = Page({}, {}, {})
    for block in code_blocks(read(path), "python"):
        named = NAMED.match(block)
        assert named is not None, f"{path}: no first line says which file this is:\n{block}"
        name, remark, text = named[1], named[2], block[named.end() :]
        if remark is None:
            found.after[name] = text
        elif remark == "before":
            found.before[name] = text
        else:
            found.others[name, remark] = text
    return found


def functions(*texts: str) -> dict[str, str]:
    """Return the functions of some modules, by name, as text without their decorators' and comments' layout."""
    nodes = (node for text in texts for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {node.name: ast.unparse(node) for node in nodes}


@dataclass(frozen=True)
class MovedProject:
    """A project in a folder, which sees this repository's packages.

    Args:
        broker_url: Of its server; by default there is none.
    """

    folder: Path
    apps: tuple[str, ...]
    broker_url: str = "redis://127.0.0.1:9/0"

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join((str(self.folder), str(ROOT)))
        return clean_environment(
            PYTHONPATH=paths, DJANGO_SETTINGS_MODULE="host_settings", SWITCHYARD_BROKER_URL=self.broker_url
        )

    def manage(self, *arguments: str) -> str:
        """Run a command of Django, and return what it printed."""
        return run(sys.executable, "-m", "django", *arguments, cwd=self.folder, environment=self.environment)

    def start_pools(self) -> subprocess.Popen[bytes]:
        """Start its pools; what they log goes to ``pools.log``."""
        with (self.folder / "pools.log").open("wb") as log:
            command = [sys.executable, "-m", "django", "switchyard", "runpools"]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)


def write_project(folder: Path, files: dict[str, str], **options: str) -> MovedProject:
    """Write a project with some files, whose folders are its apps."""
    apps = tuple(dict.fromkeys(name.partition("/")[0] for name in files))
    write_host(folder, last=SETTINGS.format(apps=list(apps)))
    for app in apps:
        (folder / app).mkdir()
        (folder / app / "__init__.py").touch()
    for name, text in files.items():
        (folder / name).write_text(text)
    return MovedProject(folder, apps, **options)
