"""Arguments: bound to the actor's signature when they are sent, and again before they run.

A wrong call fails where it is written. A message from other code, whose arguments do not fit, never enters the actor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from middleware.errors import ArgumentMismatch


class Arguments(Middleware):
    """Refuse arguments that do not fit.

    Raises:
        ArgumentMismatch: from ``send`` when the call is wrong; before a run it goes to the dead list (``permanent``).
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Check a message that is sent for the first time; refusing a retry would lose it."""
        if "enqueued_at" not in message.options:
            self._bind(broker, message)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Check a message that is about to run."""
        self._bind(broker, message)

    def _bind(self, broker: Broker, message: Message[Any] | MessageProxy) -> None:
        actor = broker.actors.get(message.actor_name)
        if actor is None:
            return
        signature = signature_of(actor.fn)
        try:
            signature.bind(*message.args, **message.kwargs)
        except TypeError as error:
            raise ArgumentMismatch(message.actor_name, str(error), str(signature)) from error


@functools.cache
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature; looked up once."""
    return inspect.signature(function)
