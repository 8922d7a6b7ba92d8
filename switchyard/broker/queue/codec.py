"""Encoding of messages as bodies: every field but id and lane, as compact JSON; empty fields are left out."""

import contextlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dramatiq.actor import Actor
from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.clock import LARGEST as LARGEST
from switchyard.broker.errors import InvalidMessageId, UnreadablePayload
from switchyard.broker.queue import json_body
from switchyard.broker.queue.arguments import in_json, in_message
from switchyard.broker.queue.json_body import kind_of
from switchyard.broker.queue.operations import Entry, policy_key

NO_ACTORS: Final[Mapping[str, Actor[Any, Any]]] = MappingProxyType({})
# Keys and fields of our own end like this: `<id>:events`, `<id>:progress`. In the hash of an owner is a field `#`.
RESERVED_ENDS: Final = (":events", ":progress")
RESERVED: Final = frozenset({"#", "events", "progress"})
MESSAGE_ID: Final = re.compile(r"(?!(?:#|events|progress)\Z)[!-~]{1,200}(?<!:events)(?<!:progress)")
MOST_ATTEMPTS: Final = 2**31 - 2
NUMBERS: Final = ("attempts", "generation", "enqueued_at", "due_at")
# Options that :func:`decode` has validated, or that take any value. Other options are the middleware's to validate.
VALIDATED: Final = frozenset((*NUMBERS, "owner", "deferred_by", "parked_ms"))
# Value of ``enqueued_at`` in the body of a message that was enqueued at its ``sent_at``: twelve bytes less, and still
# there, because its presence tells that a message is not sent for the first time.
AS_SENT: Final = 0
# For a body that is read for its fields alone.
ANY_ID: Final = "any"
# A sent message has no longer id; the table of running messages that supervisors read has no room for one.
LONGEST_ID: Final = 200
# Names are logged and shown whole.
LONGEST_NAME: Final = 256


class UnreadableMessage(Exception):
    """A body in a lane is not a message."""


def entry_of(message: Message[Any], actors: Mapping[str, Actor[Any, Any]] = NO_ACTORS) -> Entry:
    """Return a new message as an entry to enqueue; the actors, by name, say how arguments become JSON.

    Raises:
        InvalidMessageId, PayloadTooLarge, UnencodablePayload: it cannot be sent.
    """
    id_ = message.message_id
    require_id(id_)
    key = str(message.options.get("unique_key", ""))
    if key and (actor := actors.get(message.actor_name)) is not None:
        key = policy_key(key, actor.options)
    return Entry(id_, encode(in_json(message, actors)), key)


def require_message(message: Any) -> Any:
    """Return a message; a ``TypeError`` refuses what is none, such as an actor, or the result of one that was called.

    What Dramatiq makes of messages, such as ``MessageProxy``, is one.
    """
    if hasattr(message, "message_id"):
        return message
    name = getattr(message, "actor_name", "actor")
    raise TypeError(f"{kind_of(message)} is not a message; write {name}.message(...), which makes one and runs nothing")


def require_id(id_: object) -> None:
    """Refuse, by ``InvalidMessageId``, an id that no new message may have."""
    if not isinstance(id_, str) or not MESSAGE_ID.fullmatch(id_):
        raise InvalidMessageId(id_)


def encode(message: Message[Any], *, grown: bool = False) -> bytes:
    """Return the body of a message; ``PayloadTooLarge`` or ``UnencodablePayload`` when it has none.

    ``grown``: it was accepted before; its options may have grown beyond the limit of a new message.
    """
    fields: dict[str, Any] = {"actor": message.actor_name, "sent_at": message.message_timestamp}
    if message.args:
        fields["args"] = message.args
    if message.kwargs:
        fields["kwargs"] = message.kwargs
    if options := message.options:
        if options.get("enqueued_at") == message.message_timestamp:
            options = {**options, "enqueued_at": AS_SENT}
        fields["options"] = options
    return json_body.encode(fields, limit_bytes=None if grown else json_body.LIMIT_BYTES)


def decode(body: bytes, *, message_id: str, lane: str) -> Message[Any]:
    """Return the message in a body that was read from a lane. Only options in ``VALIDATED`` and ``eta`` are validated.

    Raises:
        UnreadableMessage: the body or the id is invalid.
    """
    if not _is_usable_id(message_id):
        raise UnreadableMessage(f"its id is not an id: {message_id[:50]!r}")
    try:
        fields = json_body.decode(body)
    except UnreadablePayload as error:
        raise UnreadableMessage(str(error)) from error
    actor, sent_at = fields.get("actor"), fields.get("sent_at")
    args, kwargs, options = fields.get("args", ()), fields.get("kwargs"), fields.get("options")
    if type(actor) is not str or type(sent_at) is not int:
        shown = ", ".join(sorted(fields))[:100] or "an empty object"
        raise UnreadableMessage(f"it names no actor and no time it was sent at: {shown}")
    if len(actor) > LONGEST_NAME:
        raise UnreadableMessage(f"its actor's name has {len(actor)} characters; at most {LONGEST_NAME} are read")
    if not 0 <= sent_at <= LARGEST:
        raise UnreadableMessage("sent_at is out of range: 0 to the year 9999, in milliseconds")
    if type(args) is not list and args != ():
        raise UnreadableMessage(f"args is {kind_of(args)}, not a list")
    if type(kwargs) is not dict and kwargs is not None:
        raise UnreadableMessage(f"kwargs is {kind_of(kwargs)}, not an object")
    if options is None:
        options = {}
    elif type(options) is not dict:
        raise UnreadableMessage(f"options is {kind_of(options)}, not an object")
    else:
        for name in NUMBERS:
            if name in options:
                value = options[name]
                if type(value) is not int:
                    raise UnreadableMessage(f"option {name} is {value!r:.100}, a {type(value).__name__}, not an int")
                if name == "attempts" and value > MOST_ATTEMPTS:  # a letter counts one more
                    raise UnreadableMessage(f"option attempts is {value!r:.100}, out of range: 0 to {MOST_ATTEMPTS}")
                if not 0 <= value <= LARGEST:
                    raise UnreadableMessage(f"option {name} is {value!r:.100}, out of range: 0 to the year 9999")
        if options.get("enqueued_at") == AS_SENT:
            options["enqueued_at"] = sent_at
        if "deferred_by" in options and type(options["deferred_by"]) is not str:
            raise UnreadableMessage(f"option deferred_by is {options['deferred_by']!r:.100}, not a text")
        eta = options.get("eta")
        if eta is not None and (type(eta) not in (int, float) or not 0 <= eta <= LARGEST):
            fact = "not a time in milliseconds from 0 to the year 9999"
            raise UnreadableMessage(f"option eta is {eta!r:.100}, {fact}")
    # Not by Message(...): that of a frozen dataclass calls object.__setattr__ for each field, 0.5 µs of a worker's CPU.
    message: Message[Any] = Message.__new__(Message)
    message.__dict__.update(
        queue_name=lane,
        actor_name=actor,
        args=tuple(args),
        kwargs={} if kwargs is None else kwargs,
        options=options,
        message_id=message_id,
        message_timestamp=sent_at,
    )
    return message


def as_sent(message: Message[Any] | MessageProxy) -> Message[Any]:
    """Return a held message with the arguments that it came with, whatever its actor has done to them since."""
    if body := getattr(message, "body", b""):
        with contextlib.suppress(UnreadableMessage):  # of another library's broker
            return decode(body, message_id=message.message_id, lane=message.queue_name)
    return in_message(message)


def usable_id(raw: bytes) -> str | None:
    """Return the id that a lane held as text, or ``None`` if it is none."""
    text = str(raw, "ascii", "replace")
    return text if raw.isascii() and _is_usable_id(text) else None


def _is_usable_id(text: str) -> bool:
    if not text.isprintable() or text.endswith(RESERVED_ENDS) or text in RESERVED:
        return False
    return 1 <= len(text) <= LONGEST_ID
