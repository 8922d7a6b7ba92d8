"""Parts of a forking process: inherited resources, end with the parent, title, memory, signals, stack dumps."""

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import re
import resource
import select
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
from django.db import connections
from setproctitle import setproctitle

from switchyard import database
from switchyard.broker.process import is_patched
from switchyard.conf import switchyard_settings

# Signals that our processes handle. Not SIGCHLD: gevent cannot see a subprocess end while that is blocked.
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
# From a supervisor to its gevent child: a task must stop that may block the child's other greenlets.
INTERRUPT = signal.SIGUSR2


class SignalPipe:
    """Received signals, with a descriptor that is readable when one came. One for each process, in its main thread.

    The handler takes no lock: an ``Event`` set there could wait for the very thread it interrupts. Signals that a
    parent passes on are ignored.
    """

    def __init__(self, noted: Sequence[int], ignored: Iterable[int] = ()) -> None:
        self._came: list[int] = []
        self.read_fd, self._write_fd = os.pipe()
        self._made = os.fstat(self.read_fd)
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in noted:
            signal.signal(signum, self._note)
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)
        # Blocked since the fork that made this process.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*HANDLED, *noted))

    def take(self) -> list[int]:
        """Return the signals that came since the last call, oldest first."""
        with contextlib.suppress(BlockingIOError):
            while self.is_open() and os.read(self.read_fd, 512):
                pass
        came, self._came = self._came, []
        return came

    def is_open(self) -> bool:
        """Return whether its descriptors are still its own: a task may have closed them, and others got the numbers."""
        with contextlib.suppress(OSError):
            return all(os.path.samestat(os.fstat(each), self._made) for each in (self.read_fd, self._write_fd))
        return False

    def close(self) -> None:
        """Close both ends, in a forked child, whose own wake-ups would wake its parent."""
        os.close(self.read_fd)
        os.close(self._write_fd)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._came.append(signum)


def signals_of_parent(*, below: bool) -> SignalPipe:
    """Return the signals of a process with children; one below another is passed what a terminal sends to all."""
    if below:
        noted = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD)
        return SignalPipe(noted, ignored=(signal.SIGINT, signal.SIGHUP))
    return SignalPipe((*HANDLED, signal.SIGCHLD))


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1

logger = logging.getLogger("switchyard.workers")


def fork(run: Callable[[], int], *, title: str, close_inherited: Iterable[Callable[[], None]] = ()) -> int:
    """Fork a child that runs ``run`` and ends with its result as exit code, 70 for an exception; return its pid.

    Call it from the main thread of a process that has no other: the kernel ends the child with the *thread* that
    forked it, and a lock that another thread holds would stay locked in the child for ever.

    Args:
        title: Shown by ``ps``.
        close_inherited: Called in the child first, to close what belongs to the parent alone (sockets, selectors).
    """
    # A connection must not be shared: both sides would talk on one socket, and SQLite's locks break.
    database.close_all()
    end_with_parent = die_with_parent(signal.SIGKILL)
    # A signal for the child must not run the parent's handlers, nor kill it before it can drain: signals stay blocked
    # until the child has its own SignalPipe, in an executed child too.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            code = os.EX_SOFTWARE
            try:
                if end_with_parent is not None:
                    end_with_parent()
                if is_patched():  # an event loop of its own, before it waits for anything
                    import gevent

                    gevent.reinit()
                signal.set_wakeup_fd(-1)
                for handled in (*HANDLED, signal.SIGCHLD):
                    signal.signal(handled, signal.SIG_DFL)
                for close in close_inherited:
                    close()
                for connection in connections.all(initialized_only=True):
                    del connections[connection.alias]
                name_process(title)
                code = run_or_crash(run)
            finally:
                leave(code)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return pid


def run_or_crash(run: Callable[[], int]) -> int:
    """Return what ``run`` returns, or 70 (EX_SOFTWARE) when it raises, which is logged."""
    try:
        return run()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else os.EX_SOFTWARE
    except BaseException:  # KeyboardInterrupt too: in a forked child it would return into a copy of the parent's code
        logger.exception("process crashed")
        return os.EX_SOFTWARE


def leave(code: int) -> NoReturn:
    """End this process at once, without ``atexit`` handlers and without waiting for threads.

    Whatever standard output and error are by now: closed, replaced by a task, or a pipe that nobody reads.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            # A flush into a full pipe would wait for a reader that may never come.
            if select.select([], [stream], [], 0)[1]:
                stream.flush()
    os._exit(code)


def prepare_to_fork() -> None:
    """Keep loaded objects shared with the children: a later collection would touch, and so copy, every page of them."""
    # All children log, connect, and most of them ask the database.
    redis = "switchyard.broker.redis"
    for name in ("structlog", f"{redis}.connections", f"{redis}.server_errors", "django.db.models.sql.compiler"):
        import_module(name)
    gc.collect()
    gc.freeze()


def name_process(title: str) -> None:
    setproctitle(f"switchyard: {title}")


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes, of shared pages their part; other kernels than Linux report those in full."""
    total = 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            full = process.memory_full_info() if sys.platform == "linux" else process.memory_info()
        except psutil.Error:
            continue
        total += getattr(full, "pss", full.rss)
    return total


def resident_bytes(pid: int) -> int:
    """Return a process's resident size, shared pages counted in full; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        pass  # gone, or not Linux
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that a process has started, and those that these have; none when it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def peak_bytes(used: resource.struct_rusage) -> int:
    """Return the largest resident size of a process."""
    return int(used.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def describe_exit(status: int) -> tuple[str, str]:
    """Return the reason of an exit for metrics (``SIGKILL``, ``exit``), and its description, from a wait status."""
    if os.WIFSIGNALED(status):
        try:
            name = signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            name = f"signal {os.WTERMSIG(status)}"
        return name, f"killed by {name}"
    return "exit", f"exited with {os.WEXITSTATUS(status)}"


def import_path() -> str:
    """Return ``PYTHONPATH`` for a new interpreter: the project's folder, then what ``manage.py`` or a host added."""
    # Left out: a task may start another version of Python.
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = (folder for folder in sys.path if folder and Path(folder).exists())
    folders = (folder for folder in found if not any(Path(folder).is_relative_to(each) for each in own))
    return os.pathsep.join(dict.fromkeys((str(switchyard_settings().base_dir), *folders)))


def die_with_parent(signum: int = signal.SIGTERM, *, parent_pid: int | None = None) -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for ``subprocess`` that has the kernel send ``signum`` when this process ends.

    The kernel watches the thread that forked, not the process: start children from a thread that lasts. ``None`` where
    the kernel cannot do it (anything but Linux). ``parent_pid`` is for a call in the child itself.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent_pid = parent_pid or os.getpid()

    def ask_kernel() -> None:
        if prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0 or os.getppid() != parent_pid:
            os._exit(1)

    return ask_kernel


FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE)


def stacks_file(pool_name: str, pid: int) -> Path:
    """Return the file for a child's dumps, in the state folder."""
    return Path(switchyard_settings().state_dir) / "stacks" / f"{pool_name}-{pid}.txt"


def dump_on_signal(path: Path) -> None:
    """Have this process append its stacks to a file at SIGUSR1, and when it crashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    patched = is_patched()
    if patched:
        # C finds the stacks of threads alone; only gevent knows the greenlets that wait.
        def print_greenlets(signum: int, frame: FrameType | None) -> None:
            from gevent.util import print_run_info

            print_run_info(file=file)
            file.flush()

        signal.signal(signal.SIGUSR1, print_greenlets)
    faulthandler.enable(file)
    # Chained to no earlier handler, it would kill the process.
    faulthandler.register(signal.SIGUSR1, file, chain=patched)


def crash_location(path: Path) -> str:
    """Return the last 3 frames of a child that crashed in C, and remove its file; empty without a crash dump."""
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except FileNotFoundError:
        return ""
    _, fatal, after = text.rpartition("Fatal Python error: ")
    current = after.partition("Current thread")[2] or after
    frames = [f"{Path(found['file']).name}:{found['line']} {found['function']}" for found in FRAME.finditer(current)]
    return " < ".join(frames[:3]) if fatal else ""
