"""Shutdown notices: Dramatiq's ``Shutdown`` is raised in a task that asks for it when its worker stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, Shutdown

from switchyard.middleware.interrupts import Interrupts
from switchyard.middleware.option_rules import boolean_of, flag, rule_of_both


class ShutdownNotices(Middleware):
    """Middleware that interrupts tasks with ``notify_shutdown=True``, of actor or message, when their worker stops.

    :class:`switchyard.middleware.retries.Retries` retries such a message at once, however many retries it has had. None
    is interrupted where the worker has time until its tasks have ended (``may_finish``).

    Listed after the middleware that decides the outcome.
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
        """Interrupt the tasks that ask for it, each once."""
        asking = self._asking - self._notified
        self._notified |= asking
        self._interrupts.shut_down(asking)
