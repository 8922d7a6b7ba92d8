"""Restart of the pools when a Python file of the project changes, for development.

Django's own reloader would run them in a thread and end them at any point; as a process of their own they drain.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.apps import apps

from switchyard.conf import switchyard_settings
from switchyard.middleware.places import place
from switchyard.workers.shared.fork import die_with_parent, import_path, name_process

POLL_S = 0.5
RELOAD_GRACE_S = 5.0  # a task that does not end delays the new code no longer: its message is delivered again

logger = logging.getLogger("switchyard.workers")


class Changes:
    """Changes of Python files: of those that are watched, and of all in the folders among them."""

    def __init__(self, watched: Iterable[Path]) -> None:
        self._watched = tuple(watched)
        self._known = self._written()

    def poll(self) -> set[Path]:
        """Return the files that were written, are new or are gone since the last call."""
        known, self._known = self._known, self._written()
        return {path for path in known.keys() | self._known.keys() if known.get(path) != self._known.get(path)}

    def _written(self) -> dict[Path, int]:
        found = {}
        for watched in self._watched:
            below = os.walk(watched)  # ``rglob`` fails where a folder goes away meanwhile, as by a change of branches
            paths = (Path(folder, name) for folder, _, names in below for name in names if name.endswith(".py"))
            for path in paths if watched.is_dir() else (watched,):
                with contextlib.suppress(OSError):
                    found[path] = path.stat().st_mtime_ns
        return found


def own_code() -> set[Path]:
    """Return the project's loaded files, the folders at its root that hold some, and its apps that lie elsewhere."""
    base = Path(switchyard_settings().base_dir)
    loaded = {Path(file) for module in tuple(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    own = (file for file in loaded if file.is_relative_to(base) and "site-packages" not in file.parts)
    files = {file for file in own if file.suffix == ".py"}  # a script, such as django-admin, lies in the environment
    elsewhere = {Path(app.path) for app in apps.get_app_configs() if "site-packages" not in app.path}
    return files | {base / file.relative_to(base).parts[0] for file in files} | elsewhere


def keep_reloaded(arguments: Sequence[str]) -> int:
    """Run ``manage.py`` with arguments, and after each change drain it and run it again, until SIGTERM or Ctrl-C.

    Pools that end by themselves are started with the next change. Returns the exit code of the newest pools.
    """
    name_process("reloader")
    received: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, frame: received.append(signum))
    changes = Changes(own_code())
    pending: set[Path] = set()  # written since the pools started; while one does not compile, the pools stay
    pools, has_ended = _start(arguments), False
    while not received:
        time.sleep(POLL_S)
        written = changes.poll()
        pending |= written
        if not has_ended and pools.poll() is not None:
            has_ended = True
            logger.error("reload: the pools ended with %d; they start again when a file changes", pools.returncode)
        if not written or received or not _compile(pending):
            continue
        logger.info("reload: %s changed; the pools restart", ", ".join(sorted(path.name for path in pending)))
        pending.clear()
        _drain(pools, received)
        if not received:
            pools, has_ended = _start(arguments), False
    return _drain(pools, received)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # In a separate session: Ctrl-C reaches only this process, which then signals the pools once.
    return subprocess.Popen(
        [sys.executable, "-m", "django", *arguments],
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
        env={**os.environ, "PYTHONPATH": import_path()},
    )


def _drain(pools: subprocess.Popen[bytes], received: list[int]) -> int:
    """Drain pools, or end them at once by a second signal; return their exit code, 0 for those not loaded yet."""
    pools.send_signal(signal.SIGTERM)
    while True:
        try:
            return max(pools.wait(POLL_S), 0)
        except subprocess.TimeoutExpired:
            for _ in received[1:]:
                received.pop()
                pools.send_signal(signal.SIGTERM)


def _compile(files: Iterable[Path]) -> bool:
    """Return whether all files compile; log the first one that does not."""
    for path in files:
        try:
            compile(path.read_bytes(), str(path), "exec")
        except OSError:
            continue
        except (SyntaxError, ValueError) as error:
            where = place(str(path), getattr(error, "lineno", None) or 1)
            logger.error("reload: %s: %s; the pools keep running the old code", where, getattr(error, "msg", error))
            return False
    return True
