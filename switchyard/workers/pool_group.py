"""Parents of several pools: one that loads all and forks a supervisor for each; one that restarts them in development.

Django's own reloader would run them in a thread and end them at any point; as a process of their own they drain.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from django.apps import apps

from switchyard.broker.process import is_patched
from switchyard.broker.topology import Pool
from switchyard.conf import switchyard_settings
from switchyard.middleware.errors import place
from switchyard.workers.child.main import execute_patched
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.shared.fork import (
    describe_exit,
    die_with_parent,
    fork,
    import_path,
    name_process,
    prepare_to_fork,
    signals_of_parent,
)
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.hard_limits import Heartbeats
from switchyard.workers.supervisor.processes import ProcessSet, send
from switchyard.workers.supervisor.supervisor import GRACE_S, POLL_READY_S, Supervisor

logger = logging.getLogger("switchyard.workers")


KILL_MARGIN_S = KILL_AFTER_GRACE_S + 5.0  # longer than a supervisor takes to kill its own children
# A supervisor turns its loop every 2 s, or some times that without a broker; its leases lapse after 15 s. One that is
# not ready may still load the project.
HUNG_S, BOOT_S, LOOK_S = 60.0, 300.0, 5.0
GREENLETS = "greenlet pools"


class PoolGroup:
    """Parent of several pools, until a signal drains them. A supervisor that dies is restarted, the others stay up.

    Args:
        grace_s: Seconds that running tasks may take to end once the pools drain.
        history: Runs the history writer until a signal stops it; in a process that is restarted like a supervisor.
        own_row: Row in which a parent of this one reads whether all pools are ready.
    """

    def __init__(
        self, pools: Sequence[Pool], *, grace_s: float = GRACE_S,
        history: Callable[[], int] | None = None, own_row: ChildRow | None = None,
    ) -> None:  # fmt: skip
        self._parts = _parts(pools)
        self._history = history
        self._own_row = own_row
        self._grace_s = grace_s
        count = len(self._parts) + (history is not None)
        self._table = ChildTable.create(count)
        self._ready = False
        self._unclean = False
        self._kill_at_s: float | None = None
        self._heartbeats = Heartbeats(hung_s=HUNG_S, boot_s=BOOT_S)
        self._look_at_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._signals = signals_of_parent(below=own_row is not None)
        self._process_set = ProcessSet(count, start=self._start, ended=self._ended)

    def run(self) -> int:
        """Keep the supervisors running; return 0 after a drain, 70 when a process had to be killed for it."""
        name_process("pools" if self._own_row is None else GREENLETS)
        prepare_to_fork()
        self._selector.register(self._signals.read_fd, selectors.EVENT_READ, lambda: None)
        while True:
            self._handle_signals(self._signals.take())
            self._process_set.work()
            self._replace_hung()
            if self._process_set.stopping and not self._process_set.running:
                break
            self._check_ready()
            for key, _ in self._selector.select(self._sleep_s()):
                key.data()
        if self._own_row is None:
            logger.info("pools: all drained" if not self._unclean else "pools: stopped, not all were drained")
        return os.EX_SOFTWARE if self._unclean else os.EX_OK

    def _replace_hung(self) -> None:
        """Kill supervisors that hang, so that they are started again; beat for the parent of this one."""
        if (now_s := time.monotonic()) < self._look_at_s or self._process_set.stopping:
            return
        self._look_at_s = now_s + LOOK_S
        if self._own_row is not None:
            self._own_row.beat()
        watched = {each.pid: each for each in self._process_set.running if not self._is_history(each.index)}
        silent = self._heartbeats.silent({pid: self._table.rows[each.index - 1] for pid, each in watched.items()})
        for pid, silent_s in silent:
            logger.error("%s does nothing for %.0f s; it is killed", self._named(watched[pid].index, pid), silent_s)
            send(watched[pid], signal.SIGKILL)

    def _named(self, index: int, pid: int) -> str:
        part = self._parts[index - 1]
        kind = "supervisor" if len(part) == 1 else "parent"
        return f"pool {', '.join(pool.name for pool in part)}: its {kind} (pid {pid})"

    def _handle_signals(self, signals: list[int]) -> None:
        for signum in signals:
            # A terminal that closes sends SIGHUP twice.
            if signum == signal.SIGCHLD or (signum == signal.SIGHUP and self._process_set.stopping):
                continue
            if signum == signal.SIGUSR1:
                for process in self._process_set.running:
                    send(process, signum)
                continue
            if signum == signal.SIGQUIT or (self._process_set.stopping and self._own_row is None):
                # No second SIGTERM: a process manager that signals every process must not cut the drain short.
                self._process_set.stop(signal.SIGQUIT)
            elif not self._process_set.stopping:
                self._kill_at_s = time.monotonic() + self._grace_s + KILL_MARGIN_S
                self._process_set.stop(signal.SIGTERM)
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            self._kill_at_s = None
            self._process_set.stop(signal.SIGKILL)

    def _start(self, index: int) -> int:
        row = self._table.rows[index - 1]
        row.clear()
        if self._is_history(index) and self._history is not None:
            row.ready = True  # nothing waits for it
            return fork(self._history, title="history", close_inherited=[self._close_inherited])
        part = self._parts[index - 1]

        def run() -> int:
            if len(part) > 1:
                names = [pool.name for pool in part]
                execute_patched({"pools": names, "index": index, "grace_s": self._grace_s}, self._table)
            return Supervisor(part[0], grace_s=self._grace_s, own_row=row).run()

        title = f"pool {part[0].name}" if len(part) == 1 else GREENLETS
        return fork(run, title=title, close_inherited=[self._close_inherited])

    def _ended(self, index: int, pid: int, status: int) -> bool:
        _, description = describe_exit(status)
        if self._process_set.stopping:
            self._unclean = self._unclean or status != 0
        elif self._is_history(index):
            logger.error("the history writer (pid %d) %s; it is started again", pid, description)
            return False  # with backoff: its database may be broken
        else:
            logger.error("%s %s; it is started again", self._named(index, pid), description)
        return self._table.rows[index - 1].read().ready

    def _is_history(self, index: int) -> bool:
        return index > len(self._parts)

    def _close_inherited(self) -> None:
        self._selector.close()
        self._signals.close()

    def _check_ready(self) -> None:
        if not self._ready and all(row.read().ready for row in self._table.rows):
            self._ready = True
            if self._own_row is None:
                logger.info("pools: all ready")
            else:
                self._own_row.ready = True

    def _sleep_s(self) -> float:
        now_s = time.monotonic()
        look_s = LOOK_S if self._process_set.stopping else self._look_at_s - now_s
        kill_s = math.inf if self._kill_at_s is None else self._kill_at_s - now_s
        ready_s = math.inf if self._ready else POLL_READY_S
        return max(min(look_s, kill_s, ready_s, self._process_set.seconds_to_next()), 0.0)


def _parts(pools: Sequence[Pool]) -> tuple[tuple[Pool, ...], ...]:
    """Return the pools of each forked process: one, but for gevent pools, which share a parent that loads once."""
    # These come first: they load while the others start.
    greenlets = tuple(pool for pool in pools if pool.kind == "gevent")
    others = tuple((pool,) for pool in pools if pool.kind != "gevent")
    # Where the kernel does not end orphans, a parent in between would outlive a killed one.
    if len(greenlets) > 1 and not is_patched() and sys.platform == "linux":
        return greenlets, *others
    return *((pool,) for pool in greenlets), *others


POLL_S = 0.5
RELOAD_GRACE_S = 5.0  # a task that does not end delays the new code no longer: its message is delivered again


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
