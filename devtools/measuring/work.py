"""Work to measure, an actor with its arguments; and the yard in which a pool alone runs it."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field, replace
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

from switchyard.broker.topology import Pool, Yard

POOL = "measured"


def yard_with(yard: Yard, measured: Pool) -> Yard:
    """Return a yard with one more pool, which alone serves its queues."""
    others = [
        replace(pool, queues=tuple(lane for lane in pool.queues if lane not in measured.queues)) for pool in yard.pools
    ]
    return replace(yard, pools=(measured, *(pool for pool in others if pool.queues or pool.shared_retries)))


@dataclass(frozen=True, slots=True)
class Work:
    """Actor, queue and arguments of the messages."""

    actor: str
    queue: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


def read_work(actor: str, arguments: str) -> Work:
    """Return the work that a command line names.

    Args:
        arguments: JSON: a list, or an object of named ones; "" for none.

    Raises:
        ValueError: the actor is unknown, or the arguments are not JSON or do not match its signature.
    """
    try:
        found: Any = dramatiq.get_broker().get_actor(actor)
    except ActorNotFound:
        known = ", ".join(sorted(dramatiq.get_broker().actors))
        raise ValueError(f"no actor {actor!r}; the project has {known}") from None
    try:
        given = json.loads(arguments or "[]")
    except ValueError as error:
        raise ValueError(f"arguments {arguments!r} must be JSON ({error}); write for example '[1, 2]'") from None
    if not isinstance(given, (list, dict)):
        raise ValueError(  # noqa: TRY004  invalid value on a command line
            f"arguments {arguments!r} must be a list or an object; write for example '[{arguments}]'"
        )
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
    try:
        inspect.signature(found.fn).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"actor {actor} does not take these arguments: {error}") from None
    return Work(actor, found.queue_name, args, kwargs)
