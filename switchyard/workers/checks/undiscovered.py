"""Actors that no worker has: in files that no process imports at its start, or declared before the broker was built."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import dramatiq
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning
from dramatiq.actor import Actor

from switchyard import __name__ as library
from switchyard.conf import switchyard_settings
from switchyard.middleware.places import place, place_of
from switchyard.workers.discovery import MODULE, is_discovered

DECORATED = re.compile(rb"^@(?:dramatiq\.)?actor\b", re.MULTILINE)
# Names of the file in which a newcomer, perhaps from Celery, writes actors.
NAMES = (f"{MODULE}.py", "tasks.py")
# Those of a folder of several such files.
PACKAGES = (MODULE, "tasks")


def undiscovered_actors() -> list[CheckMessage]:
    """W021: an actor in a file of this project that is not imported with the actors of the installed apps."""
    found: list[CheckMessage] = []
    base = Path(switchyard_settings().base_dir)
    installed = {Path(config.path): config.name for config in apps.get_app_configs()}
    own = [folder for folder in installed if _is_own(folder, base)]
    for folder in sorted(own):
        packages = (file for package in PACKAGES for file in folder.glob(f"{package}/**/*.py"))
        for file in sorted({*folder.glob("*.py"), *packages}):
            if _is_own(file, folder) and (line := _line_of_actor(file)):
                hint = f"Write it in {installed[folder]}.{MODULE}, or import its module there."
                found.append(_warning(file, line, "is not imported by workers", hint))
    around = {base, *(app.parent for app in own)}
    siblings = {folder for parent in around for folder in _folders(parent) if _is_own(folder, base)}
    for folder in sorted(siblings - installed.keys()):
        for file in (folder / name for name in NAMES):
            if line := _line_of_actor(file):
                name = ".".join(folder.relative_to(base).parts)
                suffix = "." if file.stem == MODULE else f", and rename the file {MODULE}.py."
                hint = f"Add {name!r} to {_list_of_apps()}{suffix}"
                found.append(_warning(file, line, "is in no installed app", hint))
    return found


def foreign_actors() -> list[CheckMessage]:
    """W036: an actor of this project with another broker than the one that was built for it."""
    base, broker = Path(switchyard_settings().base_dir), dramatiq.get_broker()
    files = [(module, getattr(module, "__file__", None)) for module in list(sys.modules.values())]
    own = [vars(module) for module, file in files if file and _is_own(Path(file), base)]
    # isinstance would make what a lazy object of the project stands for.
    found = {id(value): value for names in own for value in list(names.values()) if issubclass(type(value), Actor)}
    return [
        Warning(
            f"is declared with a {type(actor.broker).__name__}, from which no pool fetches: most likely its file is "
            "imported before the broker is built, by an apps.py",
            hint=f"Workers import {MODULE}.py themselves: leave that import out, or write it in ready(); or list "
            f"{library}.apps() before that app.",
            obj=f"actor {actor.actor_name} ({place_of(actor.fn)})",
            id="switchyard.W036",
        )
        for actor in found.values()
        if actor.broker is not broker
    ]


def _list_of_apps() -> str:
    """Return the setting to which a project adds its apps: this repository's has a list of its own for them."""
    apart = getattr(settings, "PRODUCT_APPS", None)
    if apart is None or not set(apart) <= set(settings.INSTALLED_APPS):
        return "INSTALLED_APPS"
    return "PRODUCT_APPS in the settings"


def _is_own(path: Path, base: Path) -> bool:
    """Return whether a path below ``base`` is neither of a package nor of tests."""
    if not path.is_relative_to(base):
        return False
    parts = path.relative_to(base).parts
    return not any(part in ("site-packages", "tests", "migrations") or part.startswith("test_") for part in parts)


def _folders(parent: Path) -> list[Path]:
    """Return the folders that may be packages. A folder that this user cannot read has none for its processes."""
    try:
        named = [path for path in parent.iterdir() if path.name.isidentifier()]
    except OSError:
        return []
    return [path for path in named if os.path.isdir(path)]  # noqa: PTH112  Path.is_dir() raises where it may not look


def _line_of_actor(file: Path) -> int:
    """Return the line of the first actor in a file that is not discovered, else 0, also where it cannot be read.

    Beside a project may be folders of other users, such as a database's.
    """
    try:
        if is_discovered(file) or not file.is_file():
            return 0
        source = file.read_bytes()
    except OSError:
        return 0
    decorated = DECORATED.search(source) if b"dramatiq" in source else None
    return source.count(b"\n", 0, decorated.start()) + 1 if decorated else 0


def _warning(file: Path, line: int, fact: str, hint: str) -> CheckMessage:
    words = f"this actor {fact}, so its jobs wait for a worker that knows it"
    return Warning(words, hint=hint, obj=place(str(file), line), id="switchyard.W021")
