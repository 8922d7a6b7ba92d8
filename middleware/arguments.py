"""Arguments: bound to the actor's signature when they are sent, and again before they run.

A wrong call fails where it is written. A message from other code, whose arguments do not fit, never enters the actor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, KeysView
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
        if fits(calls_of(actor.fn), len(message.args), message.kwargs.keys()):
            return
        try:
            signature.bind(*message.args, **message.kwargs)
        except TypeError as error:
            raise ArgumentMismatch(message.actor_name, str(error), str(signature)) from error


# By the number of arguments by place: the names that must be given beside them, and those that may.
Calls = dict[int, tuple[frozenset[str], frozenset[str]]]


def fits(calls: Calls, places: int, names: KeysView[str]) -> bool:
    """Return whether a call is known to fit. One that is not may still: ``Signature.bind`` decides, more slowly."""
    call = calls.get(places)
    return call is not None and call[0] <= names <= call[1]


@functools.cache
def calls_of(function: Callable[..., Any]) -> Calls:
    """Return the calls that fit a function. What ``*args`` and ``**kwargs`` take on top is left out."""
    parameters = signature_of(function).parameters.values()
    by_place = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    calls: Calls = {}
    for places in range(len(by_place) + 1):
        rest = [*by_place[places:], *(each for each in parameters if each.kind is each.KEYWORD_ONLY)]
        needed = {each.name for each in rest if each.default is each.empty}
        allowed = {each.name for each in rest if each.kind is not each.POSITIONAL_ONLY}
        calls[places] = (frozenset(needed), frozenset(allowed))
    return calls


@functools.cache
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature; looked up once."""
    return inspect.signature(function)
