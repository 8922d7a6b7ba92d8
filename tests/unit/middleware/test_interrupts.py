"""Exceptions raised in tasks: in whose, when, and that they never strike what comes after the task."""

import logging
import math
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import Interrupt, TimeLimitExceeded

from switchyard.middleware import interrupts as interrupts_module
from switchyard.middleware.errors import CancelInterrupt
from switchyard.middleware.interrupts import ThreadInterrupts
from switchyard.middleware.time_limits import TimeLimits
from tests.factories.yards import small_yard
from tests.waiting import wait_for


class Task:
    """A job's task that runs in a thread until something is raised in it."""

    def __init__(self, interrupts: ThreadInterrupts, job_id: str, limit_s: float = math.inf) -> None:
        self._interrupts, self._job_id, self._limit_s = interrupts, job_id, limit_s
        self.raised: list[type[BaseException]] = []
        self.go_on = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._began.wait(30)

    def _run(self) -> None:
        self._interrupts.begin(self._job_id, self._limit_s)
        try:
            self._began.set()
            while not self.go_on.is_set():
                time.sleep(0.001)
        except Interrupt as interrupt:
            self.raised.append(type(interrupt))
        finally:
            self._interrupts.end()

    def join(self) -> list[type[BaseException]]:
        """Return what was raised, once the task has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.raised


@pytest.fixture
def interrupts() -> ThreadInterrupts:
    """Interrupts of threads, watched."""
    started = ThreadInterrupts()
    started.start()
    return started


def test_a_cancelled_job_is_interrupted_after_a_while_and_no_other(interrupts):
    cancelled, other = Task(interrupts, "cancelled"), Task(interrupts, "other")
    asked_s = time.monotonic()

    interrupts.cancel("cancelled", after_s=0.1)

    assert cancelled.join() == [CancelInterrupt]
    assert time.monotonic() - asked_s >= 0.1
    other.go_on.set()
    assert other.join() == []


def test_a_job_that_ends_in_time_is_not_interrupted_nor_is_the_next_one_there(interrupts):
    arrived: list[BaseException] = []

    def two_tasks() -> None:
        try:
            interrupts.begin("cancelled", math.inf)
            interrupts.cancel("cancelled", after_s=2.0)
            interrupts.end()
            interrupts.begin("next", math.inf)
            for _ in range(1_200):
                time.sleep(0.002)
            interrupts.end()
        except Interrupt as late:
            arrived.append(late)

    thread = threading.Thread(target=two_tasks)
    thread.start()
    thread.join(30)

    assert arrived == []


def test_many_short_tasks_hardly_wake_what_watches_them_and_one_after_a_rest_does(monkeypatch):
    interrupts, looks = ThreadInterrupts(), []
    monkeypatch.setattr(interrupts, "raise_due", lambda: looks.append(0) or ThreadInterrupts.raise_due(interrupts))
    interrupts.start()
    for _ in range(400):
        interrupts.begin("short", math.inf)
        interrupts.end()
        time.sleep(0.001)

    assert len(looks) < 200
    wait_for(lambda: interrupts._dozes)
    assert Task(interrupts, "late", limit_s=0.01).join() == [TimeLimitExceeded]


def test_what_catches_the_exception_still_has_its_time_limit(interrupts):
    raised: list[type[BaseException]] = []

    def stubborn() -> None:
        interrupts.begin("stubborn", 2.0)
        interrupts.cancel("stubborn", after_s=0)
        while len(raised) < 2:
            try:
                while True:
                    time.sleep(0.001)
            except Interrupt as interrupt:
                raised.append(type(interrupt))
        interrupts.end()

    thread = threading.Thread(target=stubborn)
    thread.start()
    thread.join(30)

    assert raised == [CancelInterrupt, TimeLimitExceeded]


@pytest.mark.parametrize("exception", [CancelInterrupt, TimeLimitExceeded])
def test_an_exception_that_a_finalizer_loses_is_raised_again(interrupts, exception):
    struck, raised = threading.Event(), []

    class Finalized:
        def __del__(self) -> None:
            try:
                struck.wait(30)
                for _ in range(30_000):
                    time.sleep(0.001)
            except Interrupt:
                struck.clear()
                raise

    def task() -> None:
        interrupts.begin("loses", 0.05 if exception is TimeLimitExceeded else math.inf)
        try:
            struck.set()
            Finalized()
            while True:
                time.sleep(0.001)
        except Interrupt as interrupt:
            raised.append((type(interrupt), struck.is_set()))
        finally:
            interrupts.end()

    thread = threading.Thread(target=task, daemon=True)
    thread.start()
    assert struck.wait(30)
    if exception is CancelInterrupt:
        interrupts.cancel("loses", after_s=0)
    thread.join(30)

    assert raised == [(exception, False)], "it came in the finalizer first"


def test_a_task_that_was_cancelled_while_it_was_let_start_is_interrupted(interrupts):
    broker = StubBroker(middleware=[limits := TimeLimits(yard=small_yard(), interrupts=interrupts)])
    message = MessageProxy(Message("work", "job", (), {}, {"time_limit": 60_000}))
    message.cancel_requested = True

    limits.before_process_message(broker, message)

    with pytest.raises(CancelInterrupt):
        while True:
            time.sleep(0.001)
    limits.after_process_message(broker, message)


class Silent(logging.Handler):
    """Handler that takes its lock and writes nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write nothing."""


# In an interpreter of its own: callbacks of a garbage collection, which test tools add, swallow what is raised in them.
AMID_LOCKS = """
import logging, queue, sys, threading
from dramatiq.middleware import TimeLimitExceeded
from switchyard.middleware.interrupts import ThreadInterrupts

class Silent(logging.Handler):
    def emit(self, record): pass

shared, logger = queue.Queue(), logging.getLogger("amid")
logger.addHandler(Silent())
logger.propagate = False
logging.getLogger().addHandler(Silent())

def use_a_queue():
    while True:
        shared.put(1)
        shared.get()

def log_much():
    while True:
        logger.warning("line")

def task(number):
    try:
        interrupts.begin(str(number), 0.02)
        globals()[sys.argv[1]]()
    except TimeLimitExceeded:
        interrupts.end()

interrupts = ThreadInterrupts()
interrupts.start()
for _ in range(int(sys.argv[2])):
    threads = [threading.Thread(target=task, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            sys.exit("it waits for a lock that a thread has kept")
"""


@pytest.mark.parametrize(("work", "rounds"), [("use_a_queue", "6"), ("log_much", "10")])
def test_time_limits_leave_no_lock_taken(work, rounds):
    run = subprocess.run([sys.executable, "-c", AMID_LOCKS, work, rounds], capture_output=True, text=True, timeout=240)

    assert run.returncode == 0, run.stderr


# CPython 3.11 lists its threads with a lock that the end of a thread-local object takes as well. The n-th round has the
# garbage collected after n allocations, in one of them within the list.
AMID_COLLECTIONS = """
import gc, threading, time
from dramatiq.middleware import TimeLimitExceeded
from switchyard.middleware.interrupts import ThreadInterrupts

interrupts, usual = ThreadInterrupts(), gc.get_threshold()

def task(begun):
    try:
        interrupts.begin("a-job", 0)
        begun.set()
        while True:
            time.sleep(0.001)
    except TimeLimitExceeded:
        interrupts.end()

def litter():
    cycle = [threading.local()]
    cycle.append(cycle)
    cycle[0].value = 1

for allocations in range(40):
    begun = threading.Event()
    thread = threading.Thread(target=task, args=(begun,), daemon=True)
    thread.start()
    begun.wait(30)
    gc.disable()
    litter()
    gc.set_threshold(gc.get_count()[0] + allocations)
    gc.enable()
    interrupts.raise_due()
    gc.set_threshold(*usual)
    while thread.is_alive():
        interrupts.raise_due()
        thread.join(0.01)
    assert gc.isenabled()
"""


def test_a_garbage_collection_does_not_stop_the_process_as_a_task_is_interrupted():
    subprocess.run([sys.executable, "-c", AMID_COLLECTIONS], check=True, timeout=120)


def test_tasks_are_interrupted_although_one_keeps_the_lock_of_the_log(interrupts):
    root, handler = logging.getLogger(), Silent()
    root.addHandler(handler)
    assert handler.lock is not None
    try:
        with handler.lock:
            first, second = Task(interrupts, "first", 0.01), Task(interrupts, "second", 0.5)
            assert (first.join(), second.join()) == ([TimeLimitExceeded], [TimeLimitExceeded])
    finally:
        root.removeHandler(handler)


def arriving_after_the_end(
    interrupts: ThreadInterrupts, due: threading.Event, ended: threading.Event
) -> list[BaseException]:
    """End a task once its limit is ``due``, and return the interrupts that arrive in its thread afterwards."""
    arrived: list[BaseException] = []

    def task() -> None:
        try:
            interrupts.begin("a-job", 0)
            due.wait(30)
            interrupts.end()
            ended.set()
            for _ in range(100):
                threading.Event().wait(0.002)
        except TimeLimitExceeded as late:
            arrived.append(late)

    thread = threading.Thread(target=task)
    thread.start()
    while not due.is_set() and thread.is_alive():
        interrupts.raise_due()
    thread.join(30)
    return arrived


def test_a_limit_that_is_raised_late_stays_out_of_what_comes_after_the_task(monkeypatch):
    interrupts = ThreadInterrupts()
    raising, ended = threading.Event(), threading.Event()
    raise_now = interrupts_module._raise_while_in

    def raise_late(frame: FrameType, ident: int, exception: type[Interrupt]) -> bool:
        raising.set()
        ended.wait(0.1)  # the task ends between the look at its deadline and the exception
        return raise_now(sys._current_frames()[ident], ident, exception)

    monkeypatch.setattr(interrupts_module, "_raise_while_in", raise_late)

    assert arriving_after_the_end(interrupts, raising, ended) == []


def test_a_task_that_ends_once_its_limit_was_found_due_is_not_interrupted():
    interrupts = ThreadInterrupts()
    found, ended = threading.Event(), threading.Event()

    class Tasks(dict[int, Any]):
        def copy(self) -> dict[int, Any]:
            taken = super().copy()
            if taken:
                found.set()
                ended.wait(0.5)
            return taken

    interrupts._tasks = Tasks()

    assert (arriving_after_the_end(interrupts, found, ended), interrupts._tasks) == ([], {})


PROFILED = """
import sys
from switchyard.middleware.interrupts import ThreadInterrupts

interrupts = ThreadInterrupts()
interrupts.start()
try:
    interrupts.begin("a-job", 0)
    while True:
        pass
except BaseException as error:
    print(type(error).__name__, file=sys.stderr)
interrupts.end()
sys.setprofile(lambda frame, event, argument: None)
(lambda: None)()
sys.setprofile(None)
print("profiled", file=sys.stderr)
"""


def test_what_runs_after_an_interrupt_can_be_profiled():
    """CPython 3.11 looks for an exception that was taken back at each call, and is stuck there under a profiler."""
    ended = subprocess.run([sys.executable, "-c", PROFILED], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stderr.splitlines() == ["TimeLimitExceeded", "profiled"]
