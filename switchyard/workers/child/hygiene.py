"""Hygiene of a child: what tasks leave is put back, or the child is replaced; copies that they fork are disowned."""

import contextlib
import errno
import faulthandler
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker

from switchyard.broker.process import is_patched
from switchyard.middleware.async_actors import EventLoop
from switchyard.middleware.metrics import Metrics
from switchyard.slot_hygiene import LONGEST_CALL_S, SlotHygiene
from switchyard.workers.child.slot_tracking import CHECK_EVERY_S, SlotTracking
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.shared.fork import HANDLED, INTERRUPT, SignalPipe, name_process, resident_bytes

MOST_DESCRIPTORS = 0.9  # share of the descriptors that may be open: a replacement needs some until it has drained
# Threads, and processes, of tasks beyond those of the child itself. Pools of a library are kept on purpose.
LEFT, LEFT_PER_SLOT = 200, 50
CHECKS_OF_PROCESSES = 10  # as many as for one count of processes: the kernel lists them by thread
# A child without these is deaf, or ends with what it cannot write to.
WATCHED = (*{*HANDLED, INTERRUPT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM} - {signal.SIGUSR1},)
LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
LONGEST_HELD_S = 10.0  # a slow handler holds its lock as long as it writes
# Growth of a process that has just begun to work, up to which it is no sign of a leak.
LOADED_BYTES, LOADS_S = 32 * 2**20, 20.0
IDLE_EVERY_S = 5.0

# As they were when this was loaded. Where a task has replaced them, waits and limits of this process go wrong.
CLOCKS = {name: getattr(time, name) for name in ("time", "monotonic", "time_ns", "monotonic_ns")}

logger = logging.getLogger("switchyard.workers")

# Hubs of which this process is a copy. A greenlet of theirs that was collected would run its ``finally``.
_left: list[Any] = []


class ChildHygiene:
    """Watch over a child's own state, its descriptors, threads, processes, and locks of its log.

    State is put back once all tasks have ended that ran when a change was seen: it may be theirs. What cannot be put
    back has the child replaced, and so has a replaced clock: times that it gave may be waited for.

    Created in the main thread of a child that works.
    """

    keeps_transaction = False  # whether a thread that has outlasted its job keeps one open, until this child ends

    def __init__(
        self, broker: Broker, row: ChildRow, slots: SlotTracking, signals: SignalPipe, slot_count: int
    ) -> None:
        self._broker = broker
        self.row, self.slots, self.signals = row, slots, signals
        mask, names, deepest = signal.pthread_sigmask, tuple(os.environ), sys.getrecursionlimit()
        kept: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
            ("log", partial(log_state, logging.root.handlers[:]), set_log_state),  # first: it tells of the others
            ("working folder", working_folder, os.chdir),
            ("umask", lambda: int(status(b"Umask:"), 8), os.umask),
            ("signal handlers", lambda: {number: signal.getsignal(number) for number in WATCHED}, set_signal_handlers),
            ("limits of the process", lambda: {limit: resource.getrlimit(limit) for limit in LIMITS}, set_limits),
            ("mask of signals", partial(mask, signal.SIG_BLOCK, ()), partial(mask, signal.SIG_SETMASK)),
            ("time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
            # A module that a task loads may have raised it for itself.
            ("recursion limit", lambda: min(sys.getrecursionlimit(), deepest), sys.setrecursionlimit),
            ("switch interval", sys.getswitchinterval, sys.setswitchinterval),
            ("stack size of threads", threading.stack_size, threading.stack_size),
            ("collection of garbage", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
            ("locale", lambda: locale.setlocale(locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
            # A module that a task loads may add others of these two.
            ("environment", lambda: {name: os.environ.get(name) for name in names}, set_environment),
            ("filter of warnings", lambda: [each for each in warnings.filters if each[0] == "error"], set_errors),
            ("broker", dramatiq.get_broker, dramatiq.set_broker),
        )
        [self._metrics] = (entry for entry in broker.middleware if isinstance(entry, Metrics))
        [self._slot_hygiene] = (entry for entry in broker.middleware if isinstance(entry, SlotHygiene))
        self._kept = {name: (read, put_back, read()) for name, read, put_back in kept}
        self._changed: dict[str, tuple[set[str], set[str]]] = {}
        self._ran: set[str] = set()
        self._largest_bytes = self._first_bytes = resident_bytes(os.getpid())
        self._began_s = CLOCKS["monotonic"]()
        left = max(LEFT, LEFT_PER_SLOT * slot_count)
        self._most_threads, self._most_processes = int(status(b"Threads:")) + left, left
        self._held_since_s: dict[logging.Handler, float] = {}
        self._checks = 0
        self._check_at_s = self._idle_until_s = 0.0
        self._clocks_replaced = False
        self._strays: dict[Any, set[str]] = {}
        self._ran_lately = set[str]()
        self._in_sql: dict[str, float] = {}

    def check(self) -> None:
        """Check if a second has passed, five if nothing runs; of a child that can open nothing, what needs no file."""
        self._check_descriptors()
        with contextlib.suppress(OSError):  # a task may take the last descriptor at any time
            self._check()

    def _check(self) -> None:
        now_s = CLOCKS["monotonic"]()
        if now_s < self._check_at_s or (now_s < self._idle_until_s and not (self.slots.ran or self.slots.running)):
            return
        self._check_at_s = now_s + CHECK_EVERY_S
        self._checks += 1
        self._clocks_replaced = put_clocks_back() or self._clocks_replaced
        self._release_log(now_s)
        strays = self._slot_hygiene.strays()  # by the last rolling back, which has ended meanwhile
        self._slot_hygiene.roll_back_between_calls()  # a call may have outlasted its job
        if self.row.ill:  # it is to end, and the rest needs a descriptor
            return
        running = {message.message_id: message.actor_name for message in self.slots.running}
        self._idle_until_s = now_s + (0.0 if running or self.slots.ran or self._ran_lately else IDLE_EVERY_S)
        ran, self.slots.ran = self._ran | self.slots.ran, set()
        self._ran = set(running.values())
        self._note_growth(ran)
        for name in self._kept:
            self._put_back(name, ran, set(running))
        if strays is not None:
            self._note_strays(strays, now_s, ran | self._ran_lately)
        self._ran_lately = ran
        if not self.row.full and (excess := self._excess()):
            named = ", ".join(sorted(ran))
            logger.error("this child holds %s; it is replaced. It ran since a second ago: %s", excess, named)
            self.row.full = True
            self._broker.drain()  # type: ignore[attr-defined]

    def _check_descriptors(self) -> None:
        """Mark this process as ill, to be replaced, when it can open nothing, or a task has closed what it had open.

        In the first case servers would seem away; in the second, connections read and write what is not theirs.
        """
        if self.row.ill:
            return
        if not self.signals.is_open():
            signal.set_wakeup_fd(-1)
            logger.error("a task has closed file descriptors that are not its own; this process is replaced")
            self._broker.drain()  # type: ignore[attr-defined]
            self.row.ill = True
            return
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.row.ill = True
                logger.error("this process has no file descriptor left; it is replaced")

    def _note_growth(self, ran: Collection[str]) -> None:
        """Share what the process has grown beyond its largest size among the actors that ran since a second ago."""
        grown = resident_bytes(os.getpid()) - self._largest_bytes
        if grown > 0:
            self._largest_bytes += grown
            loaded_bytes, loads_s = self._largest_bytes - self._first_bytes, CLOCKS["monotonic"]() - self._began_s
            if loaded_bytes < LOADED_BYTES and loads_s < LOADS_S:
                return  # what a process loads once: where processes end again and again, each loads it
            for each in [actor for name in ran if (actor := self._broker.actors.get(name)) is not None]:
                self._metrics.grown[each.queue_name, each.actor_name].inc(grown / len(ran))

    def _put_back(self, name: str, ran: set[str], running: set[str]) -> None:
        read, put_back, before = self._kept[name]
        if (now := read()) == before:
            self._changed.pop(name, None)
            return
        actors, owners = self._changed.setdefault(name, (ran, running))
        if owners & running:
            return
        del self._changed[name]
        try:
            put_back(before)
        except (OSError, ValueError, RuntimeError, locale.Error) as error:  # the folder is gone
            self._kept[name] = read, put_back, now
            logger.error("a task left another %s, which cannot be put back: %s", name, error)
            return
        named = ", ".join(sorted(actors))
        logger.error("a task left another %s, which was put back. It may be one of: %s", name, named)

    def _note_strays(self, strays: dict[Any, float], now_s: float, ran: set[str]) -> None:
        """Have the child replaced when a thread that a task has started keeps a transaction open after its job."""
        self._strays = {each: self._strays.get(each, ran) for each in strays}
        for each, at_s in strays.items():  # jobs that began after its last statement have not started it
            is_owned = any((job.started_s or 0.0) <= at_s for job in self.slots.running)
            if now_s - at_s > LONGEST_CALL_S and not is_owned and not self.keeps_transaction:
                self.keeps_transaction = self.row.stuck = True
                names = ", ".join(sorted(self._strays[each]))
                logger.error("a thread keeps a transaction after its job; the child is replaced. It ran: %s", names)

    def only_sql_runs(self) -> bool:
        """Return whether all that runs is in the same statements as at the call before, beside such a transaction."""
        before, self._in_sql = self._in_sql, {each.message_id: each.sql_s for each in self.slots.running}
        same = (sql_s < 0 and before.get(id_) == sql_s for id_, sql_s in self._in_sql.items())
        return self.keeps_transaction and all(same)

    def _excess(self) -> str:
        """Return what this process has too much of, or nothing."""
        if isinstance(loop := get_event_loop_thread(), EventLoop) and loop.executor.was_shut_down:
            return "an event loop whose executor a task has shut down"
        if self._slot_hygiene.is_blocked():
            return "a call in the thread of async actors that has outlasted its job"
        if self._clocks_replaced:
            return "clocks that a task has replaced"
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest := os.open(os.devnull, os.O_RDONLY))
        if 0 < most * MOST_DESCRIPTORS <= lowest:
            return f"{lowest} of {most} file descriptors"
        if (threads := int(status(b"Threads:"))) > self._most_threads:
            return f"{threads} threads"
        if self._checks % CHECKS_OF_PROCESSES == 0:
            tasks = Path("/proc/self/task").glob("*/children")
            if (processes := sum(len(path.read_bytes().split()) for path in tasks)) > self._most_processes:
                return f"{processes} processes"
        return ""

    def _release_log(self, now_s: float) -> None:
        """Give each handler whose lock nobody releases another lock, or the child could not drain, and replace it."""
        for handler in logging.getLogger().handlers:
            if handler.lock is None or handler.lock.acquire(blocking=False):
                self._held_since_s.pop(handler, None)
                if handler.lock is not None:
                    handler.lock.release()
            elif now_s - self._held_since_s.setdefault(handler, now_s) > LONGEST_HELD_S:
                handler.createLock()
                self.row.stuck = True
                logger.error("a lock of the log was held for %g s; this child is replaced", LONGEST_HELD_S)


def put_clocks_back() -> bool:
    """Put back the clocks that a task has replaced, or the process would not drain; return whether one was."""
    replaced = {name: clock for name, clock in CLOCKS.items() if getattr(time, name) is not clock}
    for name, clock in replaced.items():
        setattr(time, name, clock)
    return bool(replaced)


def status(name: bytes) -> bytes:
    """Return one of the kernel's numbers of this process; 0 where it has none (anything but Linux)."""
    if sys.platform != "linux":
        return b"0"
    return Path("/proc/self/status").read_bytes().partition(name)[2].split(maxsplit=1)[0]


def working_folder() -> str:
    """Return the working folder; nothing if it was deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def set_limits(limits: dict[int, tuple[int, int]]) -> None:
    for limit, (soft, _) in limits.items():
        highest = resource.getrlimit(limit)[1]
        within = highest == resource.RLIM_INFINITY or resource.RLIM_INFINITY != soft <= highest
        resource.setrlimit(limit, (soft if within else highest, highest))


def set_signal_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def set_environment(values: dict[str, str]) -> None:
    """Set the environment's values, and the time zone of the C library by them."""
    os.environ.update(values)
    time.tzset()


def set_errors(errors: list[Any]) -> None:
    warnings.filters[:] = [each for each in warnings.filters if each[0] != "error" or each in errors]  # type: ignore[index]


def log_state(handlers: list[logging.Handler]) -> tuple[int, list[logging.Handler]]:
    """Return the level up to which the log is disabled, and which of its handlers it has."""
    return logging.root.manager.disable, [each for each in handlers if each in logging.root.handlers]


def set_log_state(state: tuple[int, list[logging.Handler]]) -> None:
    logging.disable(state[0])
    for handler in state[1]:
        logging.root.addHandler(handler)


def disown_copies(title: str) -> None:
    """Have each process that a task forks give up what is its child's: signals, stack dumps, title, greenlets.

    A copy with the handlers would outlive ``terminate()``, one with the greenlets would run other tasks again.
    """
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, HANDLED),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, HANDLED),
        after_in_child=partial(_disown, title),
    )


def _disown(title: str) -> None:
    SlotHygiene.in_copy = True
    try:
        signal.set_wakeup_fd(-1)
        faulthandler.disable()
        faulthandler.unregister(signal.SIGUSR1)
        for signum in (*HANDLED, INTERRUPT):
            signal.signal(signum, signal.SIG_DFL)
        name_process(f"forked by a task of {title}")
        if is_patched():
            _leave_hub()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _leave_hub() -> None:
    """Have the current greenlet open a hub of its own: the other greenlets wait for the one that they had.

    The old hub never runs again, not even to end: it would first run the greenlets of events that came with this one's.
    """
    from gevent.hub import get_hub, getcurrent, set_hub, set_loop
    from greenlet import greenlet

    hub, current = get_hub(), getcurrent()
    _left.append(hub)
    hub.loop.destroy()
    set_loop(None)
    set_hub(None)
    if hub.parent is not current:
        greenlet(_outlive, hub.parent).switch(current)


def _outlive(forking: Any) -> None:
    """End the process once the greenlet that forked it has ended: control would pass on to the child's main loop."""
    import greenlet

    forking.parent = greenlet.getcurrent()
    try:
        forking.switch()
    finally:
        logger.error("process that a task forked ended: it returned from its greenlet")
        os._exit(0)
