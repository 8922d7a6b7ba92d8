"""Arguments: compared with signature and annotations when a message is sent, so that a wrong call fails where written.

Messages of other code, which may not fit this worker's actors, are checked again before they run:
:mod:`switchyard.middleware.parking`.
"""

import functools
import inspect
import json
from collections.abc import Callable, Collection, KeysView
from difflib import get_close_matches
from typing import Any, Final

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.queue.administration import follows_a_job
from switchyard.broker.queue.arguments import Misfit, argument_types, callee_of, has_steps, in_message, steps_of
from switchyard.broker.queue.json_body import kind_of
from switchyard.middleware.errors import ArgumentMisfit, ArgumentMismatch


class Arguments(Middleware):
    """Middleware that refuses messages whose arguments do not fit the actor's signature or its annotations.

    Raises:
        ArgumentMismatch: from ``send`` when the call is wrong.
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Check a message that is sent for the first time: others a refusal would lose."""
        options = message.options
        if "enqueued_at" in options or follows_a_job():
            return
        if (actor := broker.actors.get(message.actor_name)) is not None:
            args, kwargs = message.args, message.kwargs
            if type(kwargs) is not dict:
                require_named(actor, kwargs)
            calls = calls_of(actor.fn)
            if (len(args), *kwargs) not in calls.seen and not calls.fit(len(args), kwargs.keys()):
                wrong = misfit(actor.fn, len(args), kwargs.keys())
                if wrong is not None:
                    raise ArgumentMismatch(actor.actor_name, wrong, actor.fn)
            if not calls.types.fit(args, kwargs):
                require_types(actor, args, kwargs)
        if options and has_steps(options):
            for step in steps_of(options):
                following = broker.actors.get(step["actor_name"])
                if following is not None:
                    require_types(following, tuple(step["args"]), step["kwargs"])


def require_types(actor: Actor[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise ``ArgumentMisfit`` with the first argument that does not fit the annotation of its parameter."""
    types = argument_types(actor.fn)
    if not types.fit(args, kwargs) and (wrong := types.misfit(args, kwargs)) is not None:
        raise ArgumentMisfit(actor.actor_name, wrong, actor.fn)


def require_named(actor: Actor[..., Any], kwargs: Any) -> None:
    """Raise ``ArgumentMismatch`` for arguments by name that are no ``dict``. They may be secret: they are not shown."""
    if not isinstance(kwargs, dict):
        raise ArgumentMismatch(actor.actor_name, f"kwargs is {kind_of(kwargs)}; write a dict", actor.fn)


# Shares of letters in common (difflib's ratio): a name that is suggested, and one that can be nothing but misspelt.
SIMILAR_NAME: Final = 0.6
SAME_NAME: Final = 0.8

# Of each function. The names of a call have many orders.
MOST_SEEN: Final = 100


class Calls:
    """Calls that fit a function, without the extra arguments that ``*args`` and ``**kwargs`` accept.

    ``seen`` are number of positional arguments and names of the others, of calls that fit: to look one up costs a third
    of comparing it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.types = argument_types(function)
        self.seen: set[tuple[int | str, ...]] = set()
        self._by_places: dict[int, tuple[frozenset[str], frozenset[str]]] = {}
        parameters = signature_of(function).parameters.values()
        by_place = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        for places in range(len(by_place) + 1):
            rest = [*by_place[places:], *(each for each in parameters if each.kind is each.KEYWORD_ONLY)]
            needed = {each.name for each in rest if each.default is each.empty}
            allowed = {each.name for each in rest if each.kind is not each.POSITIONAL_ONLY}
            self._by_places[places] = frozenset(needed), frozenset(allowed)

    def fit(self, places: int, names: KeysView[str]) -> bool:
        """Return whether a call is known to fit. All other calls need :func:`misfit`, which is slower."""
        call = self._by_places.get(places)
        if call is None or not call[0] <= names <= call[1]:
            return False
        if len(self.seen) < MOST_SEEN:
            self.seen.add((places, *names))
        return True


def misfit(function: Callable[..., Any], places: int, names: KeysView[str]) -> str | None:
    """Return why a call does not match a function's signature, ``None`` if it does. Values are not compared."""
    try:
        signature_of(function).bind(*range(places), **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return None


@functools.cache
def calls_of(function: Callable[..., Any]) -> Calls:
    return Calls(function)


@functools.cache
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature, of a class-based actor that of its ``perform``."""
    return inspect.signature(callee_of(function))


def missing_arguments(actor: Actor[..., Any], names: Collection[str]) -> str:
    """Return in words the names that are no arguments of an actor and those that it has; empty when it has all."""
    parameters = signature_of(actor.fn).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    # With **kwargs any name may be one of them, unless it is nearly that of an argument that is not named as well.
    alike = SAME_NAME if takes_any else SIMILAR_NAME
    near = {name: get_close_matches(name, parameters, n=1, cutoff=alike) for name in names if name not in parameters}
    wrong = [name for name in near if not takes_any or not set(near[name]) <= set(names)]
    if not wrong:
        return ""
    found = [f"{name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in wrong]
    return f"the actor has no argument {', '.join(found)}, it has {', '.join(parameters) or 'none'}"


def call_of(message: Any) -> str:
    """Return all that decides whether code can run a message: JSON of actor, number of places, names of the others."""
    return json.dumps([message.actor_name, len(message.args), sorted(message.kwargs)])


def knows(broker: Broker, call: str) -> bool:
    """Return whether a broker's actors accept a call. A call that cannot be read fits no actor."""
    try:
        name, places, names = json.loads(call)
        actor = broker.actors.get(name)
        return actor is not None and misfit(actor.fn, places, dict.fromkeys(names).keys()) is None
    except (TypeError, ValueError, RecursionError):
        return False


class TypedArguments(Middleware):
    """Middleware that converts the arguments of a received message to the types of its actor's annotations.

    Only arguments that JSON has no values of are converted. The proxy has the values; the message inside keeps its
    JSON, which retries and dead letters copy. Listed after all others that may skip the message. ``ArgumentMismatch``
    where a value cannot be converted: the message becomes a dead letter, whose arguments a person may edit.
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
