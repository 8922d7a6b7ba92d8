"""What a process does around a fork: shed what it inherited, end with its parent, say its name, weigh itself."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import psutil
from django.db import connections
from setproctitle import setproctitle

from apps.platform.conf import switchyard_settings
from apps.platform.workers.child import gevent
from apps.platform.workers.shared.parent_death import die_with_parent
from apps.platform.workers.shared.signal_pipe import HANDLED

EX_CRASHED = 70
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

logger = logging.getLogger("switchyard.workers")


def fork(run: Callable[[], int], *, title: str, shed: Iterable[Callable[[], None]] = ()) -> int:
    """Fork a child that runs ``run`` and ends with its result as exit code; return its pid.

    Call it from the main thread of a process that has no other: the kernel ends the child with the *thread* that
    forked it, and a lock that another thread holds would stay locked in the child for ever.

    Args:
        run: Returns an exit code; what it raises is logged and ends the child with 70.
        title: Shown by ``ps``.
        shed: Called in the child first, to let go of what is the parent's alone (sockets, selectors).
    """
    # A connection must not be shared: both sides would talk on one socket, and SQLite's locks break.
    connections.close_all()
    end_with_parent = die_with_parent(signal.SIGKILL)
    # A signal for the child must not run the parent's handlers, nor kill it before it can drain: it stays blocked until
    # the child's own SignalPipe is there, in an executed child too.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(run, title, shed, end_with_parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return pid


def run_or_crash(run: Callable[[], int]) -> int:
    """Return what ``run`` returns, or 70 (EX_SOFTWARE) when it raises, which is logged."""
    try:
        return run()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EX_CRASHED
    except Exception:
        logger.exception("process crashed")
        return EX_CRASHED


def prepare_to_fork() -> None:
    """Keep what is loaded shared with the children: a later collection would touch, hence copy, every page of it."""
    gc.collect()
    gc.freeze()


def name_process(title: str) -> None:
    """Set what ``ps`` shows, ``switchyard: <title>``."""
    setproctitle(f"switchyard: {title}")


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes, pages that they share counted once among all that share them.

    Where the kernel does not tell (anything but Linux), the resident size. Processes that are gone count nothing.
    """
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


def peak_bytes(used: resource.struct_rusage) -> int:
    """Return the resident size that a process had at most."""
    return int(used.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def describe_exit(status: int) -> tuple[str, str]:
    """Return the reason of an end for metrics (``SIGKILL``, ``exit``) and for people, from ``os.waitpid``'s status."""
    if os.WIFSIGNALED(status):
        try:
            name = signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            name = f"signal {os.WTERMSIG(status)}"
        return name, f"killed by {name}"
    return "exit", f"exited with {os.WEXITSTATUS(status)}"


def _be_child(
    run: Callable[[], int],
    title: str,
    shed: Iterable[Callable[[], None]],
    end_with_parent: Callable[[], None] | None,
) -> NoReturn:
    code = EX_CRASHED
    try:
        if end_with_parent is not None:
            end_with_parent()
        gevent.after_fork()
        signal.set_wakeup_fd(-1)
        for handled in (*HANDLED, signal.SIGCHLD):
            signal.signal(handled, signal.SIG_DFL)
        for let_go in shed:
            let_go()
        for connection in connections.all(initialized_only=True):
            del connections[connection.alias]
        name_process(title)
        code = run_or_crash(run)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: what the parent registered to happen at its exit must not happen in the child's.
        os._exit(code)


def import_path() -> str:
    """Return ``PYTHONPATH`` for a new interpreter: the project's folder comes first, as for ``manage.py``."""
    return os.pathsep.join(filter(None, (str(switchyard_settings().base_dir), os.environ.get("PYTHONPATH"))))
