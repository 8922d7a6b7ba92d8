"""Replacement of pools when a Python file of the project changes, for development.

Django's own reloader runs the reloaded program in a thread and ends it at any point. Pools fork from a main thread and
hold work: so only its file watching is used, and the pools are a process of their own, which drains.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader, iter_all_python_module_files

from switchyard.conf import switchyard_settings
from switchyard.middleware.places import place
from switchyard.workers.group.replacement import ReloadChannel
from switchyard.workers.shared.fork import die_with_parent, import_path, name_process

POLL_S = 0.5
# New code that is not loaded by then is given up: loading the project takes seconds.
READY_S = 60.0
# A pool that is not ready by then delays the others no longer: a pool of a loaded project starts in about a second.
SLOW_S = 10.0
# A task that does not end delays nobody: the new pool works already.
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


@dataclass(eq=False)
class Run:
    """One process of pools.

    Args:
        channel: Its orders and answers.
        loaded: Whether it can start pools.
    """

    process: subprocess.Popen[bytes]
    channel: ReloadChannel
    started_s: float
    loaded: bool = False

    def drain(self) -> None:
        """Request the pools to drain. A second request ends them at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


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
    """The pools of one command line: those that work, and newer ones that replace them one by one."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._runs: list[Run] = []  # oldest first; several run pools while the last one replaces them
        self._starting: Run | None = None  # the last one, until each of its pools was ready
        self._draining: list[Run] = []
        self._replaced: list[str] = []  # pools that drain now, and the runs that have not drained them
        self._awaited: list[Run] = []
        self._next_s = math.inf  # when the next pool starts in any case

    def start(self) -> None:
        """Start new pools, instead of others that are still starting."""
        for run in list(self._runs):
            if run.loaded:
                run.channel.send("cancel")
            else:
                self._drain(run)
        self._starting = _start(self._arguments)
        if not self._runs:
            self._starting.channel.send("all")
        self._runs.append(self._starting)
        self._awaited, self._next_s = [], math.inf

    def watch(self) -> None:
        """Replace each pool whose successor is ready; log pools that ended. Takes up to half a second."""
        select.select([run.channel for run in self._runs], [], [], POLL_S)
        for run in [run for run in self._draining if run.process.poll() is not None]:
            self._draining.remove(run)
        for run in list(self._runs):
            for answer, *names in run.channel.take():
                self._note(run, answer, names)
            if run in self._runs and (code := run.process.poll()) is not None:
                self._lose(run, code)
        if (new := self._starting) is None:
            return
        if time.monotonic() >= self._next_s:
            self._start_next(new, *([] if self._awaited else ["late"]))
        elif not new.loaded and time.monotonic() - new.started_s > READY_S:
            self._give_up(new, f"were not ready within {READY_S:g} s")
            self._drain(new)

    def end(self, received: list[int]) -> int:
        """Drain all pools; return the exit code of the newest. A further signal is passed on, and ends them at once."""
        runs = [*self._draining, *self._runs]
        for run in self._runs:
            run.drain()
        passed_on = min(len(received), 1)
        while any(run.process.poll() is None for run in runs):
            time.sleep(POLL_S / 10)
            for _ in received[passed_on:]:
                for run in runs:
                    run.drain()
            passed_on = max(passed_on, len(received))
        newest = [run for run in self._runs if run.loaded] or self._runs
        return newest[-1].process.returncode if newest else 0

    def _note(self, run: Run, answer: str, names: list[str]) -> None:
        older = self._runs[: self._runs.index(run)]
        new = self._starting
        if answer == "ready":
            run.loaded = True
            replaced = older if names else []
            for old in replaced:
                old.channel.send("replaced", *names)
            if run is new and older:
                self._replaced, self._awaited = names, replaced
                self._next_s = time.monotonic() + GRACE_S
                if not replaced:
                    self._start_next(new)
        elif answer == "ended" and names == self._replaced and run in self._awaited:
            self._awaited.remove(run)
            if new is not None and not self._awaited:
                self._start_next(new)
        elif answer == "complete":
            for old in older:
                self._drain(old)
            if run is new:
                self._starting = None
                if older:
                    logger.info("reload: all pools are replaced")

    def _start_next(self, new: Run, *words: str) -> None:
        new.channel.send("start", *words)
        self._awaited, self._next_s = [], time.monotonic() + SLOW_S

    def _lose(self, run: Run, code: int) -> None:
        self._runs.remove(run)
        run.channel.close()
        if run is self._starting:
            self._give_up(run, f"ended with {code}")
            return
        then = "" if self._starting else "; they start again when a file changes"
        logger.error("reload: the pools ended with %d%s", code, then)
        if self._starting is not None:
            self._starting.channel.send("all")  # the queues of those that ended have no other pools
            self._next_s = math.inf

    def _give_up(self, new: Run, fact: str) -> None:
        left = "the old pools that are left" if new.loaded else "the old pools"
        remains = f"{left} keep running the old code" if any(run is not new for run in self._runs) else "no pool runs"
        logger.error("reload: the new pools %s; %s; they start again when a file changes", fact, remains)
        self._starting = None

    def _drain(self, run: Run) -> None:
        run.drain()
        run.channel.close()
        self._runs.remove(run)
        self._draining.append(run)


def _start(arguments: Sequence[str]) -> Run:
    # In a separate session: Ctrl-C reaches only this process, which then signals the pools once.
    own, passed = socket.socketpair()
    with passed:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments, f"--reload-fd={passed.fileno()}"],
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
            env={**os.environ, "PYTHONPATH": import_path()},
            pass_fds=(passed.fileno(),),
        )
    return Run(process, ReloadChannel(own), time.monotonic())


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
