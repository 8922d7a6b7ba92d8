"""Cancellation: a job that was asked to stop never starts. One that runs stops at its next report of progress."""

from __future__ import annotations

from functools import partial

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from broker.errors import BrokerUnavailable
from broker.interface import Transport
from middleware.away import hold
from middleware.outcomes import Outcome, decide


class Cancellation(Middleware):
    """Skip messages that were asked to stop while a worker had them; others that are cancelled never come here."""

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a cancelled job. While the broker is away nobody knows, so none starts."""
        try:
            asked = self._transport.asked_to_stop(message)
        except BrokerUnavailable:
            ask = partial(self._transport.asked_to_stop, message)
            asked = hold(ask, job_id=message.message_id, what="start")
        if asked:
            decide(message, Outcome("cancelled"))
            raise SkipMessage("cancelled before it started")
