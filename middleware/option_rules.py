"""Rules of options: the values that an option takes, as an actor's option and as a message's.

A middleware lists the rules of its options as ``option_rules``; :class:`switchyard.middleware.options.Options` applies
them. A message's option overrides its actor's, and the actor's overrides its queue's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from dramatiq.actor import Actor

from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.validation import LONGEST_DELAY_MS, is_whole, whole_delay
from switchyard.middleware.errors import InvalidOption, UnknownOption
from switchyard.middleware.places import place_of

# Value of an option, and whom it is for. Returns what to write instead, empty when the value is usable.
ActorCheck = Callable[[Any, Actor[..., Any]], str]
# The same with the name of the message's queue or lane.
MessageCheck = Callable[[Any, str], str]


MESSAGE_FIELDS: dict[str, Any] = {
    "queue_name": str,
    "actor_name": str,
    "args": (list, tuple),
    "kwargs": dict,
    "options": dict,
}


class OptionRule(msgspec.Struct, frozen=True):
    """The values of one option.

    Args:
        of_actor: Check of an actor's value; ``None`` when an actor cannot have the option.
        of_message: Check of a message's value, which must be JSON; ``None`` when only actors can have the option.
        takes_none: ``None`` is the same as leaving the option out.
        words: The values in words, where no check says them.
    """

    name: str
    of_actor: ActorCheck | None
    of_message: MessageCheck | None = None
    takes_none: bool = True
    words: str = ""

    def text(self, actor: Actor[..., Any]) -> str:
        """Return in words the values that the option takes: the remedy for a value that no option takes."""
        refusal = self.of_actor(_UNUSABLE, actor) if self.of_actor is not None else ""
        if not refusal and self.of_message is not None:
            refusal = self.of_message(_UNUSABLE, actor.queue_name)
        return refusal or self.words


_UNUSABLE = object()


def rule_of_both(name: str, check: Callable[[Any], str], *, takes_none: bool = True) -> OptionRule:
    """Return the rule of an option that takes the same values from actors and messages."""
    return OptionRule(name, lambda value, actor: check(value), lambda value, queue: check(value), takes_none)


def any_value(value: Any, actor: Actor[..., Any]) -> str:
    """Accept any value: a system check validates it."""
    return ""


def flag(value: Any) -> str:
    return "" if type(value) is bool else "write True or False"


def whole_number(value: Any) -> str:
    return "" if type(value) is int else "write an integer"


def usable_delay(value: Any) -> str:
    """Accept milliseconds up to a year; a negative delay is none, a fraction is rounded up."""
    usable = is_whole(whole_delay(value), most=LONGEST_DELAY_MS)
    return "" if usable else f"write milliseconds, from 0 to {LONGEST_DELAY_MS}"


def usable_eta(value: Any) -> str:
    """Accept milliseconds since the epoch, until the year 9999, and ``None``."""
    usable = value is None or is_whole(value, most=LARGEST)
    return "" if usable else "eta is milliseconds since the epoch; or write delay=10_000"


def actor_name(value: Any) -> str:
    return "" if isinstance(value, str) and value else "write the name of an actor"


def is_message(value: Any) -> bool:
    """Return whether a value of an option is a message, as ``Message.asdict`` makes it."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in MESSAGE_FIELDS.items())


def check_actor(actor: Actor[..., Any], rules: Mapping[str, OptionRule]) -> None:
    """Raise ``InvalidOption`` for an actor's option that its rule refuses; remove options that are ``None``."""
    for name, value in list(actor.options.items()):
        rule = rules.get(name)
        if rule is None or rule.of_actor is None:
            continue
        if value is None and rule.takes_none:
            del actor.options[name]
        elif remedy := rule.of_actor(value, actor):
            raise InvalidOption(actor.actor_name, name, value, remedy, place=place_of(actor.fn))


def check_message(actor: str, queue: str, options: Mapping[str, Any], rules: Mapping[str, OptionRule]) -> None:
    """Raise ``UnknownOption`` for an option that only actors can have, ``InvalidOption`` for a refused value."""
    for name, value in options.items():
        rule = rules.get(name)
        if rule is None:
            continue
        if rule.of_message is None:
            raise UnknownOption(
                f"actor {actor}: {name} is no option of a message, only of an actor; "
                f"write it in @dramatiq.actor({name}=...), or declare a second actor with it"
            )
        if (value is not None or not rule.takes_none) and (remedy := rule.of_message(value, queue)):
            raise InvalidOption(actor, name, value, remedy)


def boolean_of(message: Any, actor: Actor[..., Any] | None, name: str, *, default: bool) -> bool:
    """Return an option that is ``True`` or ``False``: the message's, else its actor's, else the default."""
    value = message.options.get(name)
    if value is None and actor is not None:
        value = actor.options.get(name)
    return value if isinstance(value, bool) else default


def unusable(queue: str, options: Mapping[str, Any], rules: Mapping[str, OptionRule]) -> dict[str, tuple[Any, str]]:
    """Return the options of a received message that cannot be used, each with its value and a remedy."""
    found: dict[str, tuple[Any, str]] = {}
    for name in sorted(rules.keys() & options.keys()):
        check, value = rules[name].of_message, options[name]
        if check is None:
            found[name] = value, "only actors can have it"
        elif value is not None and (remedy := check(value, queue)):
            found[name] = value, remedy
    return found
