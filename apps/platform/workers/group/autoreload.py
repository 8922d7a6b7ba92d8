"""Replacement of pools when a Python file of the project changes, for development.

Django's own reloader runs the reloaded program in a thread and ends it at any point. Pools fork from a main thread and
hold work: so only its file watching is used, and the pools are a process of their own, which drains.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader, iter_all_python_module_files

from apps.platform.conf import switchyard_settings
from apps.platform.workers.group.pool_group import READY
from apps.platform.workers.shared.fork import import_path, name_process
from apps.platform.workers.shared.parent_death import die_with_parent
from middleware.places import place

POLL_S = 0.5
# New pools that do not work by then are ended: loading the project takes seconds.
READY_S = 60.0
# A task that does not end delays nobody: the new pools work already.
GRACE_S = 5.0

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


@dataclass
class Run:
    """One process of all pools.

    Args:
        ready: Descriptor that the pools write to once all of them work.
    """

    process: subprocess.Popen[bytes]
    ready: int
    started_s: float

    def is_ready(self) -> bool:
        """Return whether every pool works."""
        return bool(select.select([self.ready], [], [], 0)[0]) and os.read(self.ready, 1) == READY

    def drain(self) -> None:
        """Request the pools to drain. A second request ends them at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


def keep_reloaded(arguments: Sequence[str]) -> int:
    """Run ``manage.py`` with arguments, anew after each change, until SIGTERM or Ctrl-C; return its exit code.

    New pools start beside the old ones, which drain once every new pool works: each queue is served all the time, and
    code that does not start leaves the old pools as they are.
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
    """The pools of one command line: those that work, those that start, and older ones that drain."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._working: Run | None = None
        self._starting: Run | None = None
        self._draining: list[Run] = []

    def start(self) -> None:
        """Start new pools, instead of others that are still starting."""
        if self._starting is not None:
            self._drain(self._starting)
        self._starting = _start(self._arguments)

    def watch(self) -> None:
        """Replace the working pools by new ones that are ready; log pools that ended."""
        for run in [run for run in self._draining if run.process.poll() is not None]:
            self._forget(run)
        if self._working is not None and (code := self._working.process.poll()) is not None:
            os.close(self._working.ready)
            self._working = None
            then = "" if self._starting else "; they start again when a file changes"
            logger.error("reload: the pools ended with %d%s", code, then)
        if (new := self._starting) is None:
            return
        if (code := new.process.poll()) is not None:
            self._give_up(new, f"ended with {code}")
        elif new.is_ready():
            if self._working is not None:
                logger.info("reload: the new pools work; the old ones drain")
                self._drain(self._working)
            self._working, self._starting = new, None
        elif time.monotonic() - new.started_s > READY_S:
            self._give_up(new, f"were not ready within {READY_S:g} s")

    def end(self, received: list[int]) -> int:
        """Drain all pools; return the exit code of the newest. A further signal is passed on, and ends them at once."""
        runs = [run for run in (*self._draining, self._working, self._starting) if run is not None]
        for run in runs:
            if run not in self._draining:
                run.drain()
        passed_on = min(len(received), 1)
        while any(run.process.poll() is None for run in runs):
            time.sleep(POLL_S / 10)
            for _ in received[passed_on:]:
                for run in runs:
                    run.drain()
            passed_on = max(passed_on, len(received))
        last = self._working or self._starting
        return last.process.returncode if last is not None else 0

    def _give_up(self, new: Run, fact: str) -> None:
        remains = "the old pools keep running the old code" if self._working else "no pool runs"
        logger.error("reload: the new pools %s; %s; they start again when a file changes", fact, remains)
        self._drain(new)
        self._starting = None

    def _drain(self, run: Run) -> None:
        run.drain()
        self._draining.append(run)

    def _forget(self, run: Run) -> None:
        os.close(run.ready)
        self._draining.remove(run)


def _start(arguments: Sequence[str]) -> Run:
    # In a separate session: Ctrl-C reaches only this process, which then signals the pools once.
    ready, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments, f"--ready-fd={write}"],
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
            env={**os.environ, "PYTHONPATH": import_path()},
            pass_fds=(write,),
        )
    finally:
        os.close(write)
    return Run(process, ready, time.monotonic())


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
