"""Arguments: bound to the actor's signature when they are sent, so that a wrong call fails where it is written.

What is sent by other code, and does not fit the worker's, is looked at again before it runs: :mod:`middleware.parking`.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, KeysView
from typing import Any, Final

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.queue.depth_limits import follows_a_job
from middleware.errors import ArgumentMismatch


class Arguments(Middleware):
    """Refuse arguments that do not fit.

    Raises:
        ArgumentMismatch: from ``send`` when the call is wrong.
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Check a message that is sent for the first time.

        Refusing a retry would lose it, and so would refusing what follows a job: its next step was written by whoever
        sent the first one, maybe for other code than this worker's.
        """
        if "enqueued_at" in message.options or follows_a_job():
            return
        actor = broker.actors.get(message.actor_name)
        if actor is None or fits(calls_of(actor.fn), len(message.args), message.kwargs.keys()):
            return
        if (wrong := misfit(actor.fn, len(message.args), message.kwargs.keys())) is not None:
            raise ArgumentMismatch(message.actor_name, wrong, str(signature_of(actor.fn)))


# As many as fit into a body of a message; more were written by hand, and trying them would take all memory.
MOST_PLACES: Final = 1_000_000

# By the number of arguments by place: the names that must be given beside them, and those that may.
Calls = dict[int, tuple[frozenset[str], frozenset[str]]]


def fits(calls: Calls, places: int, names: KeysView[str]) -> bool:
    """Return whether a call is known to fit. One that is not may still: :func:`misfit` decides, more slowly."""
    call = calls.get(places)
    return call is not None and call[0] <= names <= call[1]


def misfit(function: Callable[..., Any], places: int, names: KeysView[str]) -> str | None:
    """Return what is wrong with a call, or ``None`` when it fits. Values do not matter."""
    try:
        signature_of(function).bind(*range(places), **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return None


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


def call_of(message: Any) -> str:
    """Return what a message asks of a worker, as JSON: its actor, how many arguments by place, which by name.

    Whether code can run a message depends on nothing else.
    """
    return json.dumps([message.actor_name, len(message.args), sorted(message.kwargs)])


def knows(broker: Broker, call: str) -> bool:
    """Say whether a broker's actors can be called like this. What cannot be read is known to nobody."""
    try:
        name, places, names = json.loads(call)
        actor = broker.actors.get(name)
        if actor is None or not 0 <= places <= MOST_PLACES:
            return False
        return misfit(actor.fn, places, dict.fromkeys(names).keys()) is None
    except (TypeError, ValueError, RecursionError):
        return False
