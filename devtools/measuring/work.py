"""Work to measure, messages of an actor; and the yard in which a pool alone runs it."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound
from dramatiq.message import Message

from switchyard.broker.topology import Pool, Yard

POOL = "measured"


def yard_with(yard: Yard, measured: Pool) -> Yard:
    """Return a yard with one more pool, which alone serves its queues."""
    others = [
        replace(pool, queues=tuple(lane for lane in pool.queues if lane not in measured.queues)) for pool in yard.pools
    ]
    return replace(yard, pools=(measured, *(pool for pool in others if pool.queues or pool.shared_retries)))


def read_work(actor: str, arguments: str) -> Callable[[], Message[Any]]:
    """Return a function that makes a message of the work that a command line names.

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
        if not isinstance(given, list | dict):
            raise TypeError("neither a list nor an object")
        args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
        inspect.signature(found.fn).bind(*args, **kwargs)
    except (ValueError, TypeError) as error:
        remedy = "give a list or an object as JSON, for example '[1, 2]'"
        raise ValueError(f"actor {actor} does not take the arguments {arguments!r} ({error}); {remedy}") from None
    return partial(found.message_with_options, args=args, kwargs=kwargs, max_retries=0)
