"""Envelope: when a message was sent and is due, where it was enqueued and by which job, and its tags, written in it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Final, TypeVar

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage, Middleware

from switchyard.broker.clock import CLOCK, now_ms
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.middleware.options import rule_of_both, rule_of_message, takes

# Time from making a message to sending it that its times do not tell apart.
AT_ONCE_MS: Final = 1

T = TypeVar("T")


class Envelope(Middleware):
    """Middleware that sets ``enqueued_at`` (once) and ``due_at`` (at each delay) on messages, ms since the epoch.

    The ``delay`` goes with it: it tells a due time that was reckoned by a clock ahead, see ``pull_forward``.
    Listed last: the middleware before it recognise a first send by the missing ``enqueued_at``.
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        now = now_ms()
        if CLOCK.wrong and "enqueued_at" not in message.options:
            # Dramatiq stamps with this host's clock; ages are reckoned by hosts whose clocks are right.
            object.__setattr__(message, "message_timestamp", CLOCK.corrected(message.message_timestamp))
        made_at = message.message_timestamp
        # Most messages are sent as soon as they are made: their body says the time once, see
        # switchyard/broker/queue/codec.py.
        message.options.setdefault("enqueued_at", made_at if 0 <= now - made_at <= AT_ONCE_MS else now)
        if delay is not None:
            message.options.update(due_at=now + delay, delay=min(delay, LONGEST_DELAY_MS))


def ready_since(message: Any) -> int:
    """Return the time from which a message could start, in ms since the epoch."""
    options = message.options
    return int(options.get("due_at") or options.get("enqueued_at") or message.message_timestamp)


MOST_TAGS = 10
LONGEST_TAG = 64
# Of each value of an origin.
LONGEST_VALUE = 150
FIELDS = ("request", "user", "schedule")

# Returns the fields of an origin that are known.
_origin: ContextVar[Callable[[], dict[str, str]]] = ContextVar("switchyard_origin", default=dict)
_ended_job: ContextVar[str] = ContextVar("switchyard_ended_job", default="")


@contextmanager
def _within(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def sent_by(origin: Callable[[], dict[str, str]]) -> AbstractContextManager[None]:
    """Write the origin that a function returns, called as a message is enqueued, into all that the block enqueues."""
    return _within(_origin, origin)


def sent_by_schedule(name: str, **fields: str) -> AbstractContextManager[None]:
    """Write a schedule, and further fields, as the origin of every message that the block enqueues."""
    return sent_by(lambda: {"schedule": name, **fields})


def current_origin() -> dict[str, str]:
    """Return what is known of the sender of the jobs that the current code enqueues."""
    return _origin.get()()


def following(job_id: str) -> AbstractContextManager[None]:
    """Write a job's id as the parent of what the block enqueues: the steps that follow it."""
    return _within(_ended_job, job_id)


def _is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


usable_tags = takes(
    lambda tags: (
        isinstance(tags, list | tuple) and len(tags) <= MOST_TAGS and all(_is_text(tag, LONGEST_TAG) for tag in tags)
    ),
    f"write at most {MOST_TAGS} texts of 1 to {LONGEST_TAG} characters, tags=('invoices',)",
)
_usable_origin = takes(
    lambda value: (
        isinstance(value, dict)
        and all(name in FIELDS and isinstance(text, str) and len(text) <= LONGEST_VALUE for name, text in value.items())
    ),
    "leave it out, Switchyard writes it",
)
_usable_parent = takes(
    lambda value: _is_text(value, 200), "leave it out, Switchyard writes the id of the job that sends it"
)


class Origin(Middleware):
    """Middleware that writes the options ``origin``, ``parent`` and ``tags`` into a message when it is first sent.

    ``origin`` has the fields ``request``, ``user`` and ``schedule`` that are known; ``parent`` is the id of the job
    that sends it. ``tags=("invoices",)`` is an option of an actor and of a message, whose tags are added.
    """

    option_rules: ClassVar = (
        rule_of_both("tags", usable_tags),
        rule_of_message("origin", _usable_origin),
        rule_of_message("parent", _usable_parent),
    )
    actor_options = {"tags"}

    def __init__(self) -> None:
        self._tags: dict[str, list[str]] = {}

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        if tags := actor.options.get("tags"):
            self._tags[actor.actor_name] = list(tags)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        options = message.options
        if "enqueued_at" in options:
            return
        if "origin" not in options and (origin := current_origin()):
            options["origin"] = {name: value[:LONGEST_VALUE] for name, value in origin.items()}
        current = CurrentMessage.get_current_message()
        if (parent := _ended_job.get() if current is None else current.message_id) and "parent" not in options:
            options["parent"] = parent
        if tags := self._tags.get(message.actor_name):
            options["tags"] = list(dict.fromkeys([*(options.get("tags") or ()), *tags]))[:MOST_TAGS]
