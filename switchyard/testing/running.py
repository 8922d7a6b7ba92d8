"""Runs messages of the broker in memory in the caller's thread, with Dramatiq's own way through the middleware."""

from __future__ import annotations

import inspect
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from queue import PriorityQueue
from typing import Any, Final

from dramatiq.actor import Actor
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware
from dramatiq.worker import WorkerThread

from switchyard.broker.clock import now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.middleware.outcomes import outcome_of
from switchyard.testing.broker import MemoryBroker, StoredMessage
from switchyard.testing.commits import begin_savepoints, end_savepoints, run_callbacks

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
