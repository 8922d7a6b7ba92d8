"""Pauses of actors: a message that a worker fetched before its actor was paused does not start."""

from __future__ import annotations

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Transport
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.middleware.wait_for_broker import retry_until_available


class ActorPauses(Middleware):
    """Middleware that returns a message to its queue when its actor was paused after the fetch.

    Later fetches get no message of a paused actor: the broker puts them off by itself. The worker learns of a pause
    within a quarter of a second; what it starts before runs. Neither an attempt nor a crash is counted.
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
