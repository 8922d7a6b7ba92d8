"""Unique keys: of all messages with one key, at most one is unfinished; sending another returns the first one's id."""

from __future__ import annotations

from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from middleware.errors import InvalidOption

LONGEST = 200
REMEDY = f'write 1 to {LONGEST} characters of text, for example "report:42"'


class UniqueKeys(Middleware):
    """Give messages the unique key of their actor. A key is free again when its message has ended or is dead.

    Option of an actor: ``unique_key``, a text, or a function from the arguments to one. Option of a message: the text.
    Keys belong to a queue: the same text in another queue is another key. Only Switchyard's own broker knows them.

    Raises:
        InvalidOption: a key is no text, or too long; from ``send``, and when the actor is declared.
    """

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"unique_key"}

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Refuse what can be no key."""
        option = actor.options.get("unique_key")
        if option is not None and not callable(option):
            _check(actor.actor_name, option)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the key on a message that is sent for the first time; one that moves keeps what it has."""
        if "enqueued_at" in message.options:
            return
        key = message.options.get("unique_key")
        if key is None:
            actor = broker.actors.get(message.actor_name)
            option = actor.options.get("unique_key") if actor else None
            if option is None:
                return
            key = option(*message.args, **message.kwargs) if callable(option) else option
        _check(message.actor_name, key)
        message.options["unique_key"] = key


def _check(actor_name: str, key: object) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST:
        raise InvalidOption(actor_name, "unique_key", key, REMEDY)
