"""Runs messages of the broker in memory in the caller's thread, with Dramatiq's own way through the middleware.

Beside it the time that a test moves on, and callbacks of ``transaction.on_commit`` inside a ``TestCase``'s transaction.
"""

import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from queue import PriorityQueue
from typing import Any, Final
from unittest import mock

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic
from dramatiq.actor import Actor
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware
from dramatiq.worker import WorkerThread

from switchyard.broker.clock import now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.database import in_transaction
from switchyard.middleware.envelope import sent_by_schedule
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.middleware.outcomes import outcome_of
from switchyard.schedules.registry import schedules
from switchyard.testing.broker import MemoryBroker, StoredMessage


class Clock(ExitStack):
    """The clock of a test, until it is closed. It goes on by itself, and is moved on by :meth:`advance`."""

    _moved: Any = None

    def advance(self, seconds: float) -> None:
        """Move the time of this process on.

        Raises:
            RuntimeError: ``time-machine`` is not installed.
        """
        if self._moved is None:
            try:
                import time_machine
            except ModuleNotFoundError:
                remedy = "install it, or Switchyard with its extra testing"
                raise RuntimeError(f"advance() and run_enqueued(delayed=True) need time-machine: {remedy}") from None
            self._moved = self.enter_context(time_machine.travel(datetime.now(UTC), tick=True))
        self._moved.shift(timedelta(seconds=seconds))


def seconds_of(moved: Any) -> float:
    """Return how far the time is moved on, in seconds.

    Raises:
        TypeError: it is neither a number nor a ``timedelta``. ValueError: it is below 0, or not finite.
    """
    if isinstance(moved, timedelta):
        moved = moved.total_seconds()
    if type(moved) not in (int, float):
        raise TypeError(f"advance({moved!r:.100}): write seconds as a number, or a timedelta")
    if not 0 <= moved < math.inf:
        raise ValueError(f"advance({moved!r}): time only moves on, write 0 or more")
    return float(moved)


def advance_with_ticks(clock: Clock, seconds: float) -> None:
    """Move the time on and send the ticks of periodic actors on the way, each at its minute."""
    now, due = datetime.now(UTC), schedules()
    end = now + timedelta(seconds=seconds)
    after_end = end + timedelta(seconds=1)
    while (tick := min((at for one in due if (at := one.next(now)) is not None), default=after_end)) <= end:
        clock.advance(max((tick - datetime.now(UTC)).total_seconds(), 0))
        for schedule in due:
            if schedule.next(now) == tick:
                with sent_by_schedule(schedule.name):
                    schedule.actor.broker.enqueue(schedule.actor.message())
        now = tick
    clock.advance(max((end - datetime.now(UTC)).total_seconds(), 0))


logger = logging.getLogger("switchyard.testing")


class _Callback:
    """A callback that runs once, whoever calls it."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.has_run = False

    def __call__(self) -> None:
        if not self.has_run:
            self.has_run = True
            self._function()


@contextmanager
def watched_commits(*, at_once: bool = False) -> Iterator[None]:
    """Keep the callbacks that are registered in the block, for :func:`run_callbacks`.

    Args:
        at_once: Run them where the outermost transaction of the code under test ends, as a commit would.
    """
    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(mock.patch.object(connection, "on_commit", _keeping(connection, at_once=at_once)))
            # A worker closes connections between messages; in the transaction of a test that would end the test.
            closing = _outside_of_transactions(connection)
            stack.enter_context(mock.patch.object(connection, "close_if_unusable_or_obsolete", closing))
        if at_once:
            stack.enter_context(mock.patch.object(Atomic, "__exit__", _running_at_exit()))
        yield


def run_callbacks() -> None:
    """Run the callbacks of transactions that would have been committed outside of a ``TestCase``.

    Raises:
        Exception: what a callback raised; robust ones are logged, as by Django.
    """
    while pending := [entry for connection in connections.all(initialized_only=True) for entry in _pending(connection)]:
        for callback, robust in pending:
            try:
                callback()
            except Exception:
                if not robust:
                    raise
                logger.exception("a robust on_commit callback failed")


def forget_callbacks() -> None:
    """Never run the callbacks that are kept now: those of a class's set-up belong to none of its tests."""
    for connection in connections.all(initialized_only=True):
        for callback, _ in _pending(connection):
            callback.has_run = True


def begin_savepoints() -> list[tuple[BaseDatabaseWrapper, str]]:
    """Begin savepoints in the test's transactions: a statement that fails in a task must not break them."""
    open_ = [connection for connection in connections.all(initialized_only=True) if _is_in_test(connection)]
    return [(connection, sid) for connection in open_ if (sid := connection.savepoint())]


def end_savepoints(savepoints: list[tuple[BaseDatabaseWrapper, str]]) -> None:
    """Return to the savepoint where a statement failed outside of an ``atomic`` block of the task."""
    for connection, savepoint in savepoints:
        if connection.needs_rollback:
            connection.needs_rollback = False
            connection.savepoint_rollback(savepoint)
        else:
            connection.savepoint_commit(savepoint)


def _keeping(connection: BaseDatabaseWrapper, *, at_once: bool) -> Callable[..., None]:
    original = connection.on_commit

    def on_commit(func: Any, robust: bool = False) -> None:
        original(_Callback(func) if callable(func) else func, robust)
        if at_once:
            run_callbacks()

    return on_commit


def _outside_of_transactions(connection: BaseDatabaseWrapper) -> Callable[[], None]:
    original = connection.close_if_unusable_or_obsolete

    def close_if_unusable_or_obsolete() -> None:
        if not connection.in_atomic_block:
            original()

    return close_if_unusable_or_obsolete


def _running_at_exit() -> Callable[..., Any]:
    original = Atomic.__exit__

    def exit_and_run(self: Atomic, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        original(self, exc_type, exc_value, traceback)
        if exc_type is None:
            run_callbacks()

    return exit_and_run


def _pending(connection: BaseDatabaseWrapper) -> list[tuple[_Callback, bool]]:
    if not _is_in_test(connection):
        return []
    kept: list[Any] = connection.run_on_commit  # of Django 5: savepoints, function, robust
    entries = [(function, robust) for _, function, robust in kept]
    return [(one, robust) for one, robust in entries if isinstance(one, _Callback) and not one.has_run]


def _is_in_test(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is in the transaction of a ``TestCase``, and in no other."""
    return connection.in_atomic_block and not in_transaction(connection)


# An actor that sends itself again would run for ever.
MOST_ATTEMPTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class TestedAttempt:
    """An attempt that a test ran.

    Args:
        outcome: ``succeeded``, ``retried``, ``dead``, ``cancelled``, ``expired`` or ``deferred``.
        exception: What the actor raised, or what stopped the message before it started.
    """

    __test__ = False  # no test, whatever its name says

    actor: str
    message_id: str
    outcome: str
    result: Any = None
    exception: BaseException | None = None


def endless_run(actor_name: str) -> AssertionError:
    """Return the error for messages that went on sending messages."""
    return AssertionError(
        f"run_enqueued: {MOST_ATTEMPTS} messages were run and more wait, the next for {actor_name}; an actor that "
        "sends itself again needs a delay, or an end"
    )


class Runner:
    """Runs messages one at a time.

    Time limits are counted and do not interrupt: an exception from outside would hit the test itself.

    Args:
        settle: Called when nothing is left to run; returns whether it has sent something.
    """

    def __init__(self, broker: MemoryBroker, settle: Callable[[], bool] = bool) -> None:
        self._broker, self._settle = broker, settle
        self._task = WatchedTask(broker)
        self._loop = AsyncIO()
        self._owns_loop = False
        self._working = False
        self._thread = WorkerThread(
            broker=broker,
            consumers=defaultdict(lambda: self),  # type: ignore[arg-type, return-value]
            work_queue=_NoQueue(),
            worker_timeout=1_000,
        )
        # It says of results in the jobs' records that they are discarded; pools silence it too.
        self._thread.logger = logging.Logger(self._thread.logger.name, logging.CRITICAL)
        broker.add_middleware(self._task)

    def run_ready(self, lanes: Collection[str] | None = None, *, raises: bool = True) -> list[TestedAttempt]:
        """Run what is ready, and what that sends, until nothing is; what is due later stays.

        Args:
            lanes: Run only what is in these; by default in any.
            raises: Raise what a task raised, once its attempt has ended. Otherwise it is in the result.

        Raises:
            AssertionError: there is no end of it.
        """
        if self._working:  # a task sends in eager mode: its message runs after the task
            return []
        attempts: list[TestedAttempt] = []
        self._working = True
        try:
            run_callbacks()
            while (stored := self._next_or_settled(lanes)) is not None:
                if len(attempts) >= MOST_ATTEMPTS:
                    raise endless_run(stored.message().actor_name)
                if (held := self._broker.hold(stored)) is None:
                    continue
                attempts.append(self.run_one(held))
                self._raise_for(attempts[-1], held, raises=raises)
        finally:
            self._working = False
        return attempts

    def run_one(self, held: HeldMessage) -> TestedAttempt:
        task = self._task
        task.begin()
        self._broker.moment_ms = now_ms()
        try:
            if held.actor_name not in self._broker.actors:
                held.fail()
                held.stuff_exception(ActorNotFound(held.actor_name))
                task.exception = ActorNotFound(held.actor_name)
                self.post_process_message(held)
            else:
                self._start_loop(self._broker.actors[held.actor_name])
                self._thread.process_message(held)
        finally:
            self._broker.in_task, self._broker.moment_ms = False, None
        exception = task.exception or outcome_of(held).exception
        kind = outcome_of(held, exception).kind
        return TestedAttempt(held.actor_name, held.message_id, kind, task.result, exception)

    def run_and_crash(self, held: HeldMessage) -> Any:
        """Run a held message as a worker does that is killed after the task's last line, and return its result.

        Nothing is recorded and nothing acknowledged.

        Raises:
            Exception: what stopped the message, or what the actor raised.
        """
        self._start_loop(self._broker.actors[held.actor_name])
        self._task.begin()
        try:
            self._broker.emit_before("process_message", held)
            result = self._broker.actors[held.actor_name](*held.args, **held.kwargs)
            run_callbacks()
            return result
        finally:
            self._task.after_process_message(self._broker, held)
            # For what middleware keeps of a message that runs: its log context and its clock.
            self._broker.emit_after("skip_message", held)
            CurrentMessage().after_process_message(self._broker, held)

    def post_process_message(self, message: MessageProxy) -> None:
        """Acknowledge or reject a message, as the thread of Dramatiq's consumer does."""
        signal = "nack" if message.failed else "ack"
        self._broker.emit_before(signal, message)
        self._broker.finish(message)
        self._broker.emit_after(signal, message)

    def close(self) -> None:
        """End the event loop of async actors, where one was started."""
        if self._owns_loop:
            self._loop.after_worker_shutdown(self._broker, None)
            self._owns_loop = False

    def _next_or_settled(self, lanes: Collection[str] | None) -> StoredMessage | None:
        """Return what runs next; when nothing is left, what batches send at their end."""
        found = self._broker.next_ready(lanes)
        return self._broker.next_ready(lanes) if found is None and self._settle() else found

    def _start_loop(self, actor: Actor[..., Any]) -> None:
        if inspect.iscoroutinefunction(inspect.unwrap(actor.fn)) and get_event_loop_thread() is None:
            self._loop.before_worker_boot(self._broker, None)
            self._owns_loop = True

    def _raise_for(self, attempt: TestedAttempt, held: HeldMessage, *, raises: bool) -> None:
        exception = attempt.exception
        if exception is not None and (raises or not isinstance(exception, Exception)):
            raise exception
        if self._task.callback_error is not None:
            raise self._task.callback_error
        if raises and attempt.outcome == "deferred" and outcome_of(held).reason == "parked":
            actor = self._broker.actors[held.actor_name]
            raise ArgumentMismatch(held.actor_name, "the message was parked, its arguments do not fit", actor.fn)


class WatchedTask(Middleware):
    """Notes what a task returned or raised. Listed last: its after-hook is the first one after the task."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._savepoints: list[Any] = []
        self.begin()

    def begin(self) -> None:
        self.result: Any = None
        self.exception: BaseException | None = None
        self.callback_error: Exception | None = None

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._savepoints = begin_savepoints()
        self._broker.in_task = True

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Run the callbacks of the task's commits, then note its end."""
        self.result, self.exception = result, exception
        savepoints, self._savepoints = self._savepoints, []
        try:
            end_savepoints(savepoints)
            run_callbacks()
        except Exception as error:  # noqa: BLE001  raised in the test once the attempt has ended
            self.callback_error = error
        finally:
            self._broker.in_task = False


class _NoQueue(PriorityQueue[Any]):
    """Stands for the queue of a worker that fetches by itself."""

    def task_done(self) -> None:
        """Do nothing."""
