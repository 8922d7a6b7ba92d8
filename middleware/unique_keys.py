"""Unique keys: of all messages with one key, at most one is unfinished; sending another returns the first one's id."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import Parameter
from typing import Any, ClassVar

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.queue.administration import follows_a_job
from switchyard.broker.queue.arguments import argument_types, has_steps
from switchyard.broker.topology import LONGEST_DELAY_MS, is_whole
from switchyard.loggers import get_logger
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.errors import InvalidOption, place_of
from switchyard.middleware.options import OptionRule, rule_of_actor, takes

log = get_logger(__name__)

LONGEST = 200
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
POLICIES = ("unique_until", "unique_for", "on_duplicate")
REMEDY = f'write 1 to {LONGEST} characters of text, for example "report:42"'


class UniqueKeys(Middleware):
    """Middleware that gives messages their actor's unique key. A key is free when its message has ended or is dead.

    Option of an actor: ``unique_key``, a text, or a function from the arguments to one. Option of a message: the text.
    Keys belong to a queue. ``unique_until="started"`` frees one when a worker leases the message, and ``unique_for``
    when so many milliseconds have passed since it was sent. With ``on_duplicate="replace"`` another send replaces the
    arguments of the message that waits, with ``"delay"`` it also makes a scheduled one due no earlier than itself.
    ``send`` raises ``InvalidOption`` where a key is no text, or too long, or the actor's function failed.
    """

    option_rules: ClassVar = (
        OptionRule("unique_key", lambda key, actor: _of_actor(key, actor), lambda key, queue: _of_key(key)),
        OptionRule("unique_until", lambda value, actor: _of_until(value, actor.options)),
        OptionRule("unique_for", lambda value, actor: _of_window(value, actor.options)),
        rule_of_actor(
            "on_duplicate",
            takes(lambda value: value in ("keep", "replace", "delay"), 'write "keep", "replace" or "delay"'),
        ),
    )
    actor_options = {"unique_key", *POLICIES}

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the actor's key on a message that is sent for the first time. A message's own key stays.

        Refusing a pipeline step or callback would lose it: such a message is sent without a key.
        """
        if "enqueued_at" in message.options:
            return
        actor, key = broker.actors.get(message.actor_name), message.options.get("unique_key")
        option = actor.options.get("unique_key") if actor else None
        if actor is None or (key is None and option is None):
            return
        try:
            if key is None:
                key = _made(option, actor, message) if callable(option) else option
            remedy = _of_key(key) or _of_steps(message, actor)
        except Exception as error:  # noqa: BLE001  the project's own function
            # Texts of others may quote arguments, which may be secret.
            said = f": {error}" if isinstance(error, TypeError) else ""
            key, remedy = option, f"it raised {type(error).__name__}{said}, mend the function"
        if remedy and follows_a_job():
            log.error("sent without a unique key", job_id=message.message_id, actor=message.actor_name, fact=remedy)
            message.options.pop("unique_key", None)
            return
        if remedy:
            place = place_of(option) if callable(option) else ""
            raise InvalidOption(message.actor_name, "unique_key", key, remedy, place=place)
        message.options["unique_key"] = key


def _made(function: Callable[..., Any], actor: Actor[..., Any], message: Message[Any]) -> Any:
    """Return the key of a call. The function gets what the actor gets, also of a sender that writes JSON."""
    types = argument_types(actor.fn)
    args, kwargs = types.received(*types.sent(message.args, message.kwargs))
    return function(*args, **kwargs)


def _of_actor(key: Any, actor: Actor[..., Any]) -> str:
    """Return what to write instead of an actor's key. A text is one key for all calls, whatever braces it has."""
    parameters = signature_of(actor.fn).parameters
    if callable(key):
        return _of_function(key, list(parameters.values()))
    if refusal := _of_key(key):
        return refusal
    if key in parameters:
        made = f"str({key})"
    elif any(f"{{{name}{end}" in key for name in parameters for end in "}.[:!"):
        made = f"f{key!r}"
    else:
        return ""
    return f"a text is the same key for every call; write unique_key=lambda {', '.join(parameters)}: {made}"


def _of_function(function: Callable[..., Any], parameters: list[Parameter]) -> str:
    """Return what to write instead of a function that no call of the actor fits.

    For each number of arguments by place, the call that can fit has the names that actor or function require alone.
    """
    if any(p.kind in VARIADIC for p in parameters):
        return ""
    try:
        taken = signature_of(function)
    except (TypeError, ValueError):  # a builtin without one
        return ""
    by_place = [name for name, p in taken.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = {name for name, p in taken.parameters.items() if p.default is p.empty and p.kind not in VARIADIC}
    for places in range(1 + sum(p.kind is not p.KEYWORD_ONLY for p in parameters)):
        rest, needed = parameters[places:], required.difference(by_place[:places])
        names = [p.name for p in rest if p.default is p.empty or p.name in needed]
        if any(p.kind is p.POSITIONAL_ONLY and p.name in names for p in rest):
            continue  # it is sent by place only
        with suppress(TypeError):
            taken.bind(*range(places), **dict.fromkeys(names))
            return ""
    every = ", ".join(p.name for p in parameters)
    return f"it takes {taken} and gets the actor's arguments; write unique_key=lambda {every}: ..."


def _of_steps(message: Message[Any], actor: Actor[Any, Any]) -> str:
    """Return what to do about a message that carries others, which another send would replace with it."""
    again = actor.options.get("on_duplicate", "keep")
    if again == "keep" or not has_steps(message.options):
        return ""
    return f"on_duplicate={again!r} replaces the whole message, with its further steps or its group; leave one out"


def _of_key(key: Any) -> str:
    # The bytes 1 and 2 begin keys with a policy.
    return "" if isinstance(key, str) and 1 <= len(key) <= LONGEST and key[0] >= " " else REMEDY


def _of_until(value: Any, options: Mapping[str, Any]) -> str:
    if value not in ("done", "started"):
        return 'write "done" or "started"'
    if value == "done" and options.get("on_duplicate", "keep") != "keep":
        return 'write "started": a message that runs cannot be changed by on_duplicate'
    return ""


def _of_window(value: Any, options: Mapping[str, Any]) -> str:
    if not is_whole(value, least=1, most=LONGEST_DELAY_MS):
        return f"write milliseconds, from 1 to {LONGEST_DELAY_MS}"
    others = [name for name in ("unique_until", "on_duplicate") if options.get(name) is not None]
    return f"write it without {' and '.join(others)}: a window is all that it says" if others else ""
