"""Cancellation: a cancelled job does not start, and is interrupted if it runs; pauses of actors; shutdown notices."""

from collections.abc import Callable
from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, Shutdown, SkipMessage

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Transport
from switchyard.middleware.interrupts import Interrupts
from switchyard.middleware.options import boolean_of, flag, rule_of_both
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.middleware.wait_for_broker import retry_until_available

# Time for a task to end by itself. The worker polls cancellations every 0.25 s: together well under 1 s.
STOP_BY_ITSELF_S = 0.3


class Cancellation(Middleware):
    """Middleware that skips messages cancelled while a worker held them; the broker drops other cancelled messages.

    A running task may read ``cancel_requested`` of its message and end by itself within ``grace_s``; then an exception
    is raised in it. The pool's supervisor kills the process of a task that does not return to Python.
    """

    def __init__(self, *, transport: Transport, interrupts: Interrupts) -> None:
        self._transport = transport
        self.interrupts = interrupts
        self.grace_s: Callable[[MessageProxy], float] = lambda message: STOP_BY_ITSELF_S

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a cancelled job. While the broker is unavailable no job starts: cancellations cannot be read."""
        try:
            asked = self._transport.cancel_requested(message)
        except BrokerUnavailable:
            asked = retry_until_available(message, "start", self._transport.cancel_requested, message)
        if asked:
            decide(message, Outcome("cancelled"))
            raise SkipMessage("cancelled before it started")

    def after_request_cancellation(self, broker: Broker, message: MessageProxy) -> None:
        """Interrupt a task after a short time. The broker calls this for each held message that was cancelled."""
        self.interrupts.cancel(message.message_id, after_s=self.grace_s(message))


class ActorPauses(Middleware):
    """Middleware that returns a message to its queue when its actor was paused after the fetch.

    Later fetches get none of such an actor. The worker learns of a pause within a quarter of a second; what it starts
    before runs. Neither an attempt nor a crash is counted.
    """

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        try:
            returned = self._transport.return_paused(message)
        except BrokerUnavailable:
            what = "return to a paused actor's queue"
            returned = retry_until_available(message, what, self._transport.return_paused, message)
        if returned:
            decide(message, Outcome("deferred", "actor_paused"))
            raise SkipMessage("its actor was paused before it started")


class ShutdownNotices(Middleware):
    """Middleware that interrupts tasks with ``notify_shutdown=True``, of actor or message, when their worker stops.

    Such a message is retried at once, however many retries it has had. None is interrupted where the worker has time
    until its tasks have ended (``may_finish``). Listed after the middleware that decides the outcome.
    """

    option_rules: ClassVar = (rule_of_both("notify_shutdown", flag),)
    actor_options = {"notify_shutdown"}

    def __init__(self, *, interrupts: Interrupts) -> None:
        self.may_finish: Callable[[], bool] = bool
        self._interrupts = interrupts
        self._asking: set[str] = set()
        self._notified: set[str] = set()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if boolean_of(message, broker.actors.get(message.actor_name), "notify_shutdown", default=False):
            self._asking.add(message.message_id)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Mark a message whose task was interrupted, for the decision on its retry."""
        if message.message_id not in self._asking:
            return
        self._asking.discard(message.message_id)
        if isinstance(exception, Shutdown) and message.message_id in self._notified:
            message.shut_down = True  # type: ignore[attr-defined]
            exception.args = exception.args or ("its worker stops",)
        self._notified.discard(message.message_id)

    after_skip_message = after_process_message

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        if not self.may_finish():
            self.notify()

    def notify(self) -> None:
        """Interrupt the tasks whose cancellation was requested, each once."""
        asking = self._asking - self._notified
        self._notified |= asking
        self._interrupts.shut_down(asking)
