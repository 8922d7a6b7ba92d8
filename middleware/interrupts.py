"""Exceptions raised in running tasks from outside: at a time limit, at a cancellation, or when the worker stops."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat, starmap
from operator import call, is_, itemgetter, methodcaller
from queue import SimpleQueue
from time import monotonic  # not as a task may have left it: a frozen clock would interrupt others
from types import FrameType, MappingProxyType
from typing import Any

from dramatiq.middleware import Interrupt, Shutdown, TimeLimitExceeded
from dramatiq.threading import is_gevent_active

from switchyard.loggers import get_logger
from switchyard.middleware.errors import CancelInterrupt

# Interval at which time limits of threads are checked; greenlets have timers.
INTERVAL_S = 0.25
# An exception that arrives in one of these, before the ``try`` that guards what was taken or before the last step of
# giving it back, would leave it taken for ever.
TAKERS = frozenset({"__enter__", "__exit__", "acquire", "release", "_acquire_restore", "_release_save"})
# Where these functions are short, an exception waits until the thread has left them; elsewhere for a second at most.
SHORT_IN = frozenset({"threading", "logging", "queue", "contextlib", "django.db.transaction"})
SOON_S, PATIENCE_S = 0.001, 1.0
# Threads that contend for one lock pass the interpreter on to each other inside these functions alone, so whenever the
# watcher looks, each is in one. Turns far shorter than CPython's 5 ms end elsewhere too.
CONTENDED_S, SHORT_TURN_S = 0.05, 1e-5

# Returns how many threads it found.
_set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

log = get_logger(__name__)


class _ThreadTask:
    # Class attributes: few tasks set them, and an instance is created for each message.
    asked: Mapping[type[Interrupt], float] = MappingProxyType({})  # when each is to be raised, or infinity
    raised = False  # an exception may be on its way

    def __init__(self, job_id: str, limit_at_s: float) -> None:
        self.job_id = job_id
        self.limit_at_s = limit_at_s

    def due(self, now_s: float) -> tuple[type[Interrupt], float] | None:
        """Return the exception that is due, and since when; or ``None``."""
        planned: dict[type[Interrupt], float] = {**self.asked, TimeLimitExceeded: self.limit_at_s}
        return next(((exception, at_s) for exception, at_s in planned.items() if at_s <= now_s), None)

    def plan(self, exception: type[Interrupt], at_s: float) -> None:
        """Have an exception raised at another time; never again at infinity."""
        if exception is TimeLimitExceeded:
            self.limit_at_s = at_s
        else:
            self.asked = {**self.asked, exception: at_s}


class ThreadInterrupts:
    """The running tasks of this process, each in its thread, watched by a thread of their own.

    An exception arrives when the task next runs Python code: a call that stays in C is not interrupted.
    ``cancellation`` is raised in the task of a cancelled job.
    """

    def __init__(self) -> None:
        self.cancellation: type[CancelInterrupt] = CancelInterrupt
        # Threads change it without the lock: who goes through it goes through a copy.
        self._tasks: dict[int, _ThreadTask] = {}
        self._lock = threading.RLock()
        self._soon, self._dozes = threading.Event(), False
        self._raised: SimpleQueue[tuple[str, type[Interrupt]]] = SimpleQueue()
        self._watcher: threading.Thread | None = None
        self._usual_turn_s: float | None = None  # set while turns are short

    def start(self) -> None:
        """Start to watch time limits in this process."""
        if self._watcher is None:
            _started.append(self)
            if len(_started) == 1:
                sys.unraisablehook = partial(_raise_again, sys.unraisablehook)
            self._watcher = threading.Thread(target=self._watch, name="switchyard-interrupts", daemon=True)
            self._watcher.start()
            # A task may hold the log's lock for as long as it likes.
            threading.Thread(target=self._log, name="switchyard-interrupts-log", daemon=True).start()

    def begin(self, job_id: str, limit_s: float) -> None:
        """Register the task that starts in this thread, with its time limit; infinity for none."""
        self._tasks[threading.get_ident()] = _ThreadTask(job_id, monotonic() + limit_s)
        if self._dozes:
            self._soon.set()

    def end(self) -> None:
        """Unregister the task of this thread; an exception that has not arrived is withdrawn.

        Without the lock at first: who raises an exception takes the task out meanwhile, so that one of the two has it.
        """
        while True:
            try:
                ident = threading.get_ident()
                task = self._tasks.pop(ident, None)
                if task is not None and not task.raised:
                    return
                with self._lock:
                    task = self._tasks.pop(ident, task)
                    if task is not None and task.raised:
                        _withdraw(ident)
                return
            except Interrupt:  # it came too late: the task has ended
                continue

    def cancel(self, job_id: str, *, after_s: float) -> None:
        """Raise ``cancellation`` once in a job's task, unless it ends before."""
        self._ask([job_id], self.cancellation, monotonic() + after_s)

    def shut_down(self, job_ids: Collection[str]) -> None:
        """Raise Dramatiq's ``Shutdown`` in the tasks of these jobs."""
        self._ask(job_ids, Shutdown, monotonic())

    def _ask(self, job_ids: Collection[str], exception: type[Interrupt], at_s: float) -> None:
        with self._lock:
            for task in self._tasks.copy().values():
                if task.job_id in job_ids:
                    task.asked = {exception: at_s, **task.asked}  # once: an earlier one stays
        self._soon.set()

    def cancel_here(self, is_asked: Callable[[str], bool]) -> None:
        """Do nothing: no handler interrupts a thread that works."""

    def raise_again(self, exception: type[Interrupt]) -> bool:
        """Have an exception that this thread's task has lost raised once more; return whether a task runs here."""
        with self._lock:
            if task := self._tasks.get(threading.get_ident()):
                task.plan(exception, monotonic())
        self._soon.set()
        return task is not None

    def raise_due(self) -> float:
        """Raise the exceptions that are due; return the seconds until the next one may be."""
        now_s = monotonic()
        next_s = now_s + INTERVAL_S
        is_contended = False
        with self._lock:
            for ident, task in self._tasks.copy().items():
                if due := task.due(now_s):
                    exception, since_s = due
                    if not self._raise_in(ident, task, exception, now_s - since_s):
                        next_s = min(next_s, now_s + SOON_S)
                        is_contended |= now_s - since_s > CONTENDED_S
                        continue
                    task.plan(exception, math.inf)
                next_s = min(next_s, *task.asked.values()) if task.asked else next_s
        self._shorten_turns(is_contended)
        return max(next_s - now_s, 0.0)

    def _shorten_turns(self, is_contended: bool) -> None:
        """Shorten the turns of this process's threads as long as an exception waits for a contended lock."""
        if is_contended and self._usual_turn_s is None:
            self._usual_turn_s = sys.getswitchinterval()
            sys.setswitchinterval(SHORT_TURN_S)
        elif not is_contended and self._usual_turn_s is not None:
            sys.setswitchinterval(self._usual_turn_s)
            self._usual_turn_s = None

    def _raise_in(self, ident: int, task: _ThreadTask, exception: type[Interrupt], waited_s: float) -> bool:
        """Raise in a task's thread unless it has ended; return whether it is done. For a caller that holds the lock."""
        found = self._tasks.pop(ident, None)
        if found is None:
            return True
        collects = gc.isenabled()
        gc.disable()  # CPython 3.11 stops for ever where it collects a thread-local object as it lists frames
        try:
            frame = sys._current_frames().get(ident)
            if found is not task or frame is None:
                return True
            task.raised = not _is_taking(frame, waited_s) and _raise_while_in(frame, ident, exception)
            if task.raised:
                self._raised.put((task.job_id, exception))
            return task.raised
        finally:
            self._tasks.setdefault(ident, found)  # its end waits for the lock until then
            if collects:
                gc.enable()

    def _watch(self) -> None:
        is_over = False
        while True:
            wait_s = self.raise_due()
            # After an interval without: each of many short tasks would wake this thread, and the two take turns.
            # Before it looks for tasks once more: one that begins from now on wakes this thread.
            self._dozes = is_over and not self._tasks
            is_over = not self._tasks and not self._dozes
            self._soon.wait(None if self._dozes and not self._tasks else wait_s)
            self._soon.clear()

    def _log(self) -> None:
        while True:
            _log_interrupt(*self._raised.get())


# Those of this process: one, in a worker.
_started: list[ThreadInterrupts] = []


def _raise_again(instead: Callable[[sys.UnraisableHookArgs], object], lost: sys.UnraisableHookArgs) -> None:
    """Raise an interrupt again that Python can only print, as one that has ended a finalizer."""
    exception = lost.exc_type
    if not (issubclass(exception, Interrupt) and any(started.raise_again(exception) for started in _started)):
        instead(lost)


def _is_taking(frame: FrameType, waited_s: float) -> bool:
    """Return whether a thread, whose innermost frame this is, takes something or gives it back, and is waited for."""
    if frame.f_code.co_name not in TAKERS:
        return False
    return waited_s < PATIENCE_S or frame.f_globals.get("__name__") in SHORT_IN


def _raise_while_in(frame: FrameType, ident: int, exception: type[Interrupt]) -> bool:
    """Raise in a thread if this is still its innermost frame; return whether it was.

    A chain of iterators of C, because between two steps of Python the thread could go on and take something.
    """
    there = filter(partial(is_, frame), map(methodcaller("get", ident), map(call, (sys._current_frames,))))
    target = (ctypes.c_ulong(ident), ctypes.py_object(exception))
    return any(starmap(_set_exception, map(itemgetter(1), zip(there, repeat(target), strict=False))))


@dataclass(slots=True, eq=False)
class _GreenletTask:
    job_id: str
    greenlet: Any
    timers: list[Any]
    cancelled: bool = False  # the exception was raised


class GreenletInterrupts:
    """The same of greenlets, raised by timers of their hub."""

    def __init__(self) -> None:
        self.cancellation: type[CancelInterrupt] = CancelInterrupt
        self._tasks: dict[int, _GreenletTask] = {}

    def start(self) -> None:
        """Do nothing: the hub watches."""

    def begin(self, job_id: str, limit_s: float) -> None:
        from gevent import getcurrent

        task = self._tasks[threading.get_ident()] = _GreenletTask(job_id, getcurrent(), [])
        if limit_s < math.inf:
            self._raise_after(limit_s, task, TimeLimitExceeded)

    def end(self) -> None:
        while True:
            try:
                task = self._tasks.pop(threading.get_ident(), None)
                for timer in task.timers if task is not None else ():
                    timer.close()
                return
            except Interrupt:  # from a signal: the task has ended
                continue

    def cancel(self, job_id: str, *, after_s: float) -> None:
        for task in list(self._tasks.values()):
            if task.job_id == job_id:
                self._raise_after(after_s, task, self.cancellation)

    def shut_down(self, job_ids: Collection[str]) -> None:
        for task in list(self._tasks.values()):
            if task.job_id in job_ids:
                self._raise_after(0, task, Shutdown)

    def cancel_here(self, is_asked: Callable[[str], bool]) -> None:
        """Raise in the current greenlet if its job was cancelled: it lets no other greenlet run, not even the hub."""
        task = self._tasks.get(threading.get_ident())
        if task is not None and not task.cancelled and is_asked(task.job_id):
            task.cancelled = True
            _log_interrupt(task.job_id, self.cancellation)
            raise self.cancellation

    def _raise_after(self, after_s: float, task: _GreenletTask, exception: type[Interrupt]) -> None:
        from gevent import get_hub

        timer = get_hub().loop.timer(after_s)
        task.timers.append(timer)
        timer.start(self._raise, task, exception)

    def _raise(self, task: _GreenletTask, exception: type[Interrupt]) -> None:
        cancels = issubclass(exception, CancelInterrupt)
        if task not in self._tasks.values() or (cancels and task.cancelled):
            return
        task.cancelled |= cancels
        _log_interrupt(task.job_id, exception)
        task.greenlet.throw(exception)


Interrupts = ThreadInterrupts | GreenletInterrupts


def make_interrupts() -> Interrupts:
    """Return the interrupts of this process: of greenlets where gevent has patched it, else of threads."""
    return GreenletInterrupts() if is_gevent_active() else ThreadInterrupts()


def _log_interrupt(job_id: str, exception: type[Interrupt]) -> None:
    log.warning("interrupted", job_id=job_id, exception=exception.__name__)


class _Withdrawn(BaseException):
    """Exception in place of one that is withdrawn; nothing else raises it."""


def _withdraw(thread_id: int) -> None:
    """Withdraw an exception that was set for the current thread and has not arrived: another one arrives here instead.

    After one that was only taken back, CPython 3.11 looks for it at each call of a function as long as it lives.
    """
    try:
        _set_exception(ctypes.c_ulong(thread_id), ctypes.py_object(_Withdrawn))
        for _ in range(100):  # it arrives after the call, or at the first turn
            pass
        _set_exception(ctypes.c_ulong(thread_id), None)
    except _Withdrawn:
        return
