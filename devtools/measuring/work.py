"""Work to measure: an actor with its arguments."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

from devtools.measuring.contenders import SAMPLES_QUEUE

SAMPLES = ("cpu", "http", "database")


@dataclass(frozen=True, slots=True)
class Work:
    """Actor, queue and arguments of the messages."""

    actor: str
    queue: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


def read_work(actor: str, arguments: str, *, url: str) -> Work:
    """Return the work that a command line names: an actor of the project, or one of the samples.

    Args:
        arguments: JSON: a list, or an object of named ones; "" for none.
        url: URL of the slow server, for the sample ``http``.

    Raises:
        ValueError: the actor is unknown, or the arguments are no JSON or do not match its signature.
    """
    try:
        found: Any = dramatiq.get_broker().get_actor(actor)
    except ActorNotFound:
        if actor not in SAMPLES:
            known = ", ".join(sorted(dramatiq.get_broker().actors))
            raise ValueError(f"no actor {actor!r}; the project has {known}; samples are {', '.join(SAMPLES)}") from None
        return Work(f"sample_{actor}", SAMPLES_QUEUE, [url] if actor == "http" else [])
    try:
        given = json.loads(arguments or "[]")
    except ValueError as error:
        raise ValueError(f"arguments {arguments!r} are no JSON ({error}); write for example '[1, 2]'") from None
    if not isinstance(given, (list, dict)):
        raise ValueError(  # noqa: TRY004  invalid value on a command line
            f"arguments {arguments!r} are neither a list nor an object; write for example '[{arguments}]'"
        )
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
    try:
        inspect.signature(found.fn).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"actor {actor} does not take these arguments: {error}") from None
    return Work(actor, found.queue_name, args, kwargs)
