"""Async actors: run on an event loop that a worker starts; a call outside of a worker is refused with what to write."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from inspect import isasyncgen, isawaitable, iscoroutine, iscoroutinefunction, isgenerator
from typing import Any

from dramatiq.actor import Actor
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import AsyncIO, CurrentMessage
from dramatiq.threading import Interrupt

from switchyard.middleware import wait_for_broker
from switchyard.middleware.errors import MissingWorker, UnusableResult

START_S, STOP_S = 60.0, 1.0
# Interval at which a thread looks whether an exception was raised in it, as in Dramatiq.
INTERVAL_S = 0.1
# A coroutine that is seen twice in a row, so far apart, does not let its loop go on.
OCCUPIED_S = 1.0


class AsyncActors(AsyncIO):
    """Middleware with an event loop, in a thread of its own, for a worker's async actors.

    Where none runs their call raises ``MissingWorker``.
    """

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start the loop."""
        loop = EventLoop(self.logger, INTERVAL_S)
        loop.daemon = True
        loop.start(timeout=START_S)
        set_event_loop_thread(loop)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop the loop. What keeps it from stopping ends with the process."""
        loop = get_event_loop_thread()
        set_event_loop_thread(None)
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.loop.call_soon_threadsafe(loop.loop.stop)
            loop.join(STOP_S)

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Check the calls of an async actor. Dramatiq has wrapped its function already, to wait for the event loop."""
        run, function = actor.fn, getattr(actor.fn, "__wrapped__", None)
        if not iscoroutinefunction(function):
            return

        @functools.wraps(function)
        def run_in_worker(*args: Any, **kwargs: Any) -> Any:
            if get_event_loop_thread() is None:
                raise MissingWorker(actor.actor_name, function)
            return run(*args, **kwargs)

        actor.fn = run_in_worker

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Refuse an awaitable or a generator, which nothing has run: only an ``async`` function runs on the loop."""
        if result is None or not (isawaitable(result) or isgenerator(result) or isasyncgen(result)):
            return
        if iscoroutine(result):
            result.close()
        raise UnusableResult(
            f"actor {message.actor_name}: it returned {type(result).__name__}, which nothing has run; "
            "write `async def`, below decorators that are async too, or run it in the actor and return what it gives"
        )


class EventLoop(EventLoopThread):
    """Event loop that outlives what its coroutines raise and set on it, and leaves none of them before it has ended.

    ``executor`` are the threads of ``asyncio.to_thread``; a loop whose executor was shut down refuses every later call.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.executor = Executor(thread_name_prefix="asyncio")
        self._debug = self.loop.get_debug()
        self.put_back()

    def put_back(self) -> None:
        """Set on the loop what a coroutine may have set, in the loop's thread."""
        self.loop.set_default_executor(self.executor)
        self.loop.set_task_factory(None)
        self.loop.set_exception_handler(None)
        self.loop.set_debug(self._debug)

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # type: ignore[override]
        """Run a coroutine on the loop and return its result, for a thread that may be interrupted.

        An interrupt cancels the coroutine and is raised when that has ended. Until then the thread's slot is busy and
        its hard limit runs, unless another coroutine keeps this one from being cancelled.

        Raises:
            RuntimeError: the loop does not run.
            BaseException: of the coroutine. ``asyncio`` would end the loop for all others by a ``SystemExit``.
        """
        if not self.is_alive():
            coroutine.close()
            if message := CurrentMessage.get_current_message():  # retried, whatever its policy says
                message.shut_down = True  # type: ignore[attr-defined]
            raise RuntimeError("the event loop of this worker has ended; the message is retried elsewhere")
        run = _Run(self.loop, coroutine, self.put_back)
        interrupt: Interrupt | None = None
        while True:
            try:
                while interrupt is None and not run.ended.wait(self.interrupt_check_ival):
                    pass
                if interrupt is not None:
                    run.wait_for_cancellation()
                break
            except Interrupt as error:
                interrupt = error
                self.loop.call_soon_threadsafe(run.cancel)
        if interrupt is not None:
            raise interrupt
        if run.error is not None:
            raise run.error
        return run.result


class Executor(ThreadPoolExecutor):
    """Executor that knows whether it was shut down."""

    was_shut_down = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut it down."""
        self.was_shut_down = True
        super().shutdown(wait, cancel_futures=cancel_futures)


class _Run:
    """A coroutine on a loop, where it is put at once; ``ended`` is set when it has ended with all that it cleans up."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], put_back: Callable[[], None]
    ) -> None:
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._loop = loop
        self._put_back = put_back
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """Cancel the coroutine, in the loop's thread."""
        if self._task is not None:
            self._task.cancel()

    def wait_for_cancellation(self) -> None:
        """Wait until a cancelled coroutine has ended.

        While another one occupies the loop, the hard limit of this one's job is suspended: the other is to blame.
        """
        message = CurrentMessage.get_current_message()
        before = None
        with contextlib.ExitStack() as suspended:
            while not self.ended.wait(OCCUPIED_S):
                occupant = asyncio.current_task(self._loop)
                if occupant not in (None, self._task) and occupant is before and message is not None:
                    suspended.enter_context(wait_for_broker.waiting(message.message_id))
                    message = None
                before = occupant

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._contain())
        self._task.add_done_callback(self._end)  # one that is cancelled before its first step runs nothing of its own

    async def _contain(self) -> None:
        try:
            self.result = await self._coroutine
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits
            self.error = error
        finally:
            self._end()

    def _end(self, task: asyncio.Task[None] | None = None) -> None:
        self._coroutine.close()
        self._put_back()
        self.ended.set()
