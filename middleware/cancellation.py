"""Cancellation: a job that was asked to stop never starts; one that runs is told, then interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from broker.errors import BrokerUnavailable
from broker.interface import Transport
from middleware.interrupts import Interrupts
from middleware.outcomes import Outcome, decide
from middleware.wait_for_broker import retry_until_available

# For a task to stop by itself once its worker knows, which takes a quarter of a second: together well under a second.
STOP_BY_ITSELF_S = 0.3


class Cancellation(Middleware):
    """Skip messages that were asked to stop while a worker had them; others that are cancelled never come here.

    A task that runs may see it, from its message's ``asked``, and end by itself. If it does not, an exception is raised
    in it. What does not return to Python is killed, with its process, by the pool's supervisor.

    Args:
        interrupts: Of this process's tasks.
    """

    def __init__(self, *, transport: Transport, interrupts: Interrupts) -> None:
        self._transport = transport
        self._interrupts = interrupts

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a cancelled job. While the broker is away nobody knows, so none starts."""
        try:
            asked = self._transport.cancel_requested(message)
        except BrokerUnavailable:
            ask = partial(self._transport.cancel_requested, message)
            asked = retry_until_available(ask, job_id=message.message_id, what="start")
        if asked:
            decide(message, Outcome("cancelled"))
            raise SkipMessage("cancelled before it started")

    def after_request_cancellation(self, broker: Broker, message: MessageProxy) -> None:
        """Interrupt a task soon. The broker says so of each message in hand that somebody cancelled."""
        self._interrupts.cancel(message.message_id, after_s=STOP_BY_ITSELF_S)

    def interrupt_here(self, is_asked: Callable[[str], bool]) -> None:
        """Interrupt the greenlet that runs now, if its job was asked to stop; for the handler of a signal.

        Raises:
            CancelInterrupt: it was.
        """
        self._interrupts.cancel_here(is_asked)
