"""Replacement of pools when a Python file of the project changes, for development.

Django's own reloader runs the reloaded program in a thread and ends it at any point. Pools fork from a main thread and
hold work: so only its file watching is used, and the pools are a process of their own, which drains.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil
from django.apps import apps
from django.utils.autoreload import StatReloader, iter_all_python_module_files

from switchyard.conf import switchyard_settings
from switchyard.middleware.places import place
from switchyard.workers.group.pool_group import has_title
from switchyard.workers.shared.fork import die_with_parent, import_path, name_process

POLL_S = 0.5
# New code that is not loaded by then is given up: loading the project takes seconds.
READY_S = 60.0
# Title that a parent has once it is loaded.
PARENT = "pools"

logger = logging.getLogger("switchyard.workers")


class Changes(StatReloader):
    """The Python files of the project, and their changes."""

    def __init__(self) -> None:
        super().__init__()
        self._folders = own_folders()
        for folder in self._folders:
            self.watch_dir(folder, "**/*.py")
        self._known = dict(self.snapshot_files())

    def poll(self) -> list[Path]:
        """Return the files that were written since the last call, and those of the project that are new or deleted."""
        known, self._known = self._known, dict(self.snapshot_files())
        # A library's module is first seen when something imports it: that is no change.
        written = [path for path, mtime in self._known.items() if path in known and known[path] != mtime]
        return written + [path for path in known.keys() ^ self._known.keys() if self._own(path)]

    def _own(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._folders)


def own_folders() -> set[Path]:
    """Return the folders that hold the project's code: its packages, and apps that are not installed as packages."""
    base = Path(switchyard_settings().base_dir)
    modules = {Path(file) for file in iter_all_python_module_files()}
    packages = {base / file.relative_to(base).parts[0] for file in modules if file.is_relative_to(base)}
    folders = {folder for folder in packages if (folder / "__init__.py").exists() or folder.name == "apps"}
    own_apps = {Path(config.path) for config in apps.get_app_configs() if "site-packages" not in config.path}
    return folders | {path for path in own_apps if not any(path.is_relative_to(folder) for folder in folders)}


def keep_reloaded(arguments: Sequence[str]) -> int:
    """Run ``manage.py`` with arguments, anew after each change, until SIGTERM or Ctrl-C; return its exit code.

    New pools start beside the old ones, one after another. Each old pool drains once its successor works: every queue
    is served all the time, no more than one pool is there twice, and code that does not start leaves the old pools.
    """
    name_process("reloader")
    received: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, frame: received.append(signum))
    changes, pools = Changes(), Pools(arguments)
    pools.start()
    pending: set[Path] = set()  # changed since the pools started; while one does not compile, none is loaded
    while not received:
        time.sleep(POLL_S)
        pools.watch()
        changed = changes.poll()
        pending.update(changed)
        if not changed or received or not _compile(pending):
            continue
        logger.info("reload: %s changed; new pools start", ", ".join(sorted(path.name for path in pending)))
        pending.clear()
        pools.start()
    return pools.end(received)


class Pools:
    """The parents of pools of one command line: the newest replaces the pools of the others one by one.

    A parent ends with the last of its pools. SIGHUP has one start no more, or ends it while it loads.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._parents: list[subprocess.Popen[bytes]] = []  # oldest first
        self._load_until_s = math.inf

    def start(self) -> None:
        """Start a parent of new pools, instead of one whose pools are still starting."""
        if self._parents:
            self._parents[-1].send_signal(signal.SIGHUP)
        older = ",".join(str(parent.pid) for parent in self._parents)
        # In a separate session: Ctrl-C reaches only this process, which then signals the pools once.
        parent = subprocess.Popen(
            [sys.executable, "-m", "django", *self._arguments, f"--replaces={older}"],
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
            env={**os.environ, "PYTHONPATH": import_path()},
        )
        self._parents.append(parent)
        self._load_until_s = time.monotonic() + READY_S

    def watch(self) -> None:
        """Log that the newest pools ended, or do not load."""
        newest = self._parents[-1] if self._parents else None
        self._parents = [parent for parent in self._parents if parent.poll() is None]
        if newest is not None and newest.returncode is not None:
            self._give_up(f"ended with {newest.returncode}")
        elif newest is not None and time.monotonic() > self._load_until_s:
            self._load_until_s = math.inf
            if not has_title(psutil.Process(newest.pid), PARENT):
                newest.send_signal(signal.SIGHUP)
                self._parents.remove(newest)
                self._give_up(f"were not ready within {READY_S:g} s")

    def end(self, received: list[int]) -> int:
        """Drain all pools; return the exit code of the newest. A further signal is passed on, and ends them at once."""
        parents, passed_on = self._parents, 0
        while any(parent.poll() is None for parent in parents):
            if len(received) > passed_on:
                passed_on += 1
                for parent in parents:
                    parent.send_signal(signal.SIGTERM)
            time.sleep(POLL_S / 10)
        # One that a signal killed was not loaded yet.
        return next((parent.returncode for parent in reversed(parents) if parent.returncode >= 0), 0)

    def _give_up(self, fact: str) -> None:
        remains = "the old pools keep running the old code" if self._parents else "no pool runs"
        logger.error("reload: the newest pools %s; %s; they start again when a file changes", fact, remains)


def _compile(files: Iterable[Path]) -> bool:
    """Return whether all files compile; log the first one that does not."""
    for path in files:
        try:
            compile(path.read_bytes(), str(path), "exec")
        except FileNotFoundError:
            continue
        except SyntaxError as error:
            where = place(str(path), error.lineno or 1)
            logger.error("reload: %s: %s; the pools keep running the old code", where, error.msg)
            return False
        except ValueError as error:
            logger.error("reload: %s: %s; the pools keep running the old code", path, error)
            return False
    return True
