"""Pauses of actors over several queue families: each keeps its own copy, so that its fetches need no other place.

An act on them goes through the families one after the other; interrupted, it is completed when it is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.broker.clock import now_ms
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations
from switchyard.broker.redis.own_keys import read
from switchyard.broker.shapes import ActorPause


def pause(families: Sequence[QueueOperations], wanted: ActorPause) -> bool:
    """Pause an actor in all families; ``False`` when it was so in each and stays as it was.

    Raises:
        ValueError: see :func:`switchyard.broker.queue.administration.pause_actor`.
    """
    changed = [administration.pause_actor(family, wanted) for family in families]
    return any(changed)


def resume(families: Sequence[QueueOperations], field: str) -> bool:
    """End a pause in all families; ``False`` when none had it."""
    ended = [administration.resume_actor(family, field) for family in families]
    return any(ended)


def pauses(families: Sequence[QueueOperations]) -> list[ActorPause]:
    """Return the pauses in force in any of the families, by actor, and open circuits; a round trip to each server."""
    found: dict[str, ActorPause] = {}
    reads = [("HVALS", family.keys.actor_pauses) for family in families]
    answers = families[0].calls.look(reads) if families else []
    for family, texts in zip(families, answers, strict=True):
        for text in texts:
            one = read(ACTOR_PAUSE, text, family.keys.actor_pauses)
            if one is not None and (one.is_open or (one.calls is None and not 0 < one.until <= now_ms())):
                found.setdefault(one.field, one)
    return [found[field] for field in sorted(found)]
