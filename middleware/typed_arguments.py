"""Typed arguments: an actor gets values of its annotated types, made from the JSON of its message."""

from __future__ import annotations

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker.queue.arguments.types import Misfit, argument_types, in_message
from switchyard.middleware.errors import ArgumentMismatch


class TypedArguments(Middleware):
    """Middleware that converts the arguments of a received message to the types of its actor's annotations.

    Only arguments that JSON has no values of are converted: text, numbers, lists and dicts go on as they are, whether
    or not they fit. The proxy has the values; the message inside keeps its JSON, which retries and dead letters copy.

    Listed after all others that may skip the message.

    Raises:
        ArgumentMismatch: a value cannot be converted; the message becomes a dead letter, whose arguments a person may
            edit.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        actor = broker.actors.get(message.actor_name)
        if actor is None or not (types := argument_types(actor.fn)).is_typed or message.failed:
            return
        sent = in_message(message)
        try:
            message.args, message.kwargs = types.received(sent.args, sent.kwargs)
        except Misfit as misfit:
            remedy = "requeue it with other arguments, or once every worker has code that accepts these"
            raise ArgumentMismatch(message.actor_name, f"{misfit}; {remedy}", actor.fn) from None
