"""Options: an unknown one is refused where it is written, with the name that was most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Set
from typing import Any

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.queue.depth_limits import follows_a_job
from middleware.errors import InvalidOption, UnknownOption

# What our own middleware and Dramatiq write into a message's options; nobody sends them by hand.
INTERNAL = frozenset(
    {"attempts", "enqueued_at", "due_at", "generation", "deferred_by", "parked_ms", "redis_message_id", "eta", "owner"}
    | {"pipe_target", "pipe_ignore", "group_completion_uuid", "group_completion_callbacks", "traceback", "retries"}
    | {"asyncio_loop", "on_success", "on_failure"}
)


class KnownOptions(set[str]):
    """A broker's set of actor options. Dramatiq subtracts it from what an actor was given: what is left is unknown."""

    def __rsub__(self, given: Set[Any]) -> set[Any]:
        unknown = {name for name in given if name not in self}
        if unknown:
            raise UnknownOption(_misspelt("actor option", unknown, self))
        return set()


class Options(Middleware):
    """Refuse misspelt options of messages when they are sent; :func:`refuse_unknown` does it for actors.

    Option of a message: ``priority``, an integer, instead of its actor's.

    Raises:
        UnknownOption: nobody knows the option. InvalidOption: a priority is no integer.
    """

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"priority"}

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Refuse unknown options of a message that is sent for the first time.

        A retry, and what follows a job, is enqueued from an after-hook, where refusing would lose the message; so only
        first sends are checked.
        """
        if "enqueued_at" in message.options or follows_a_job():
            return
        unknown = {name for name in message.options if name not in broker.actor_options and name not in INTERNAL}
        if unknown:
            raise UnknownOption(_misspelt("message option", unknown, broker.actor_options))
        priority = message.options.get("priority")
        if priority is not None and type(priority) is not int:
            raise InvalidOption(message.actor_name, "priority", priority, "write an integer; a lower one goes first")


def refuse_unknown(broker: Broker) -> None:
    """Make a broker refuse unknown actor options from the first actor on."""
    broker.actor_options = KnownOptions(broker.actor_options)


def _misspelt(what: str, unknown: Iterable[str], known: Iterable[str]) -> str:
    found = []
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, known, n=1)
        found.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return f"unknown {what} {', '.join(found)}; known are {', '.join(sorted(known))}"
