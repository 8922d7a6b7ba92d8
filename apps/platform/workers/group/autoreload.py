"""Restart of pools when a Python file of the project changes, for development.

Django's own reloader runs the reloaded program in a thread and ends it at any point. Pools fork from a main thread and
hold work: so only its file watching is used, and the pools are a process of their own, which drains.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader, iter_all_python_module_files

from apps.platform.conf import switchyard_settings
from apps.platform.workers.shared.fork import import_path, name_process
from apps.platform.workers.shared.parent_death import die_with_parent

POLL_S = 0.5

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
        """Return the files that were written since the last call, and new ones of the project."""
        known, self._known = self._known, dict(self.snapshot_files())
        return [path for path, mtime in self._known.items() if known.get(path) != mtime and self._counts(path, known)]

    def _counts(self, path: Path, known: Mapping[Path, float]) -> bool:
        # A library's module is first seen when something imports it: that is no change.
        return path in known or any(path.is_relative_to(folder) for folder in self._folders)


def own_folders() -> set[Path]:
    """Return the folders that hold the project's code: its packages, and apps that are not installed as packages."""
    base = Path(switchyard_settings().base_dir)
    modules = {Path(file) for file in iter_all_python_module_files()}
    packages = {base / file.relative_to(base).parts[0] for file in modules if file.is_relative_to(base)}
    folders = {folder for folder in packages if (folder / "__init__.py").exists() or folder.name == "apps"}
    own_apps = {Path(config.path) for config in apps.get_app_configs() if "site-packages" not in config.path}
    return folders | {path for path in own_apps if not any(path.is_relative_to(folder) for folder in folders)}


def keep_reloaded(arguments: Sequence[str]) -> int:
    """Run ``manage.py`` with arguments, again after each change, until SIGTERM or Ctrl-C; return its exit code.

    A file that does not compile is logged and not loaded: the old code keeps running. Pools that fail to start are
    started again with the next change.
    """
    name_process("reloader")
    received: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, frame: received.append(signum))
    changes = Changes()
    pools: subprocess.Popen[bytes] | None = _start(arguments)
    pending: set[Path] = set()  # changed since the pools started; while one does not compile, none is loaded
    while True:
        time.sleep(POLL_S)
        if received:
            return _end(pools, received) if pools is not None else 0
        if pools is not None and (code := pools.poll()) is not None:
            logger.error("reload: the pools ended with %d; they start again when a file changes", code)
            pools = None
        changed = changes.poll()
        pending.update(changed)
        if not changed or not _compile(pending):
            continue
        logger.info("reload: %s changed; the pools drain", ", ".join(sorted(path.name for path in pending)))
        pending.clear()
        if pools is not None:
            code = _end(pools, received)
            if received:
                return code
        pools = _start(arguments)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # In a separate session: Ctrl-C reaches only this process, which then signals the pools once.
    return subprocess.Popen(
        [sys.executable, "-m", "django", *arguments],
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
        env={**os.environ, "PYTHONPATH": import_path()},
    )


def _end(pools: subprocess.Popen[bytes], received: list[int]) -> int:
    """Drain the pools and return their exit code. A further signal is passed on, and ends them at once."""
    pools.send_signal(signal.SIGTERM)
    passed_on = min(len(received), 1)
    while pools.poll() is None:
        time.sleep(POLL_S / 10)
        for _ in received[passed_on:]:
            pools.send_signal(signal.SIGTERM)
        passed_on = max(passed_on, len(received))
    return pools.returncode


def _compile(files: Iterable[Path]) -> bool:
    """Return whether all files compile; log the first one that does not."""
    for path in files:
        try:
            compile(path.read_bytes(), str(path), "exec")
        except FileNotFoundError:
            continue
        except (SyntaxError, ValueError) as error:
            logger.error("reload: %s: %s; the pools keep running the old code", path, error)
            return False
    return True
