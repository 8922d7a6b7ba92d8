"""Messages that a queue holds for later: whose they are, why they are held, and when the first is due."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import dramatiq

from broker.admin.browse import look
from broker.clock import datetime_of
from broker.queue.operations import QueueOperations

# A page that is read every few seconds decodes so many bodies at most.
LOOKED_THROUGH: Final = 200


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """Held messages of one actor that are held for one reason, among the next to be due.

    Args:
        reason: As in the option ``deferred_by``, with the actor's limit where it has one; ``delay`` as it was sent.
    """

    actor: str
    reason: str
    count: int
    due: datetime


def held_groups(family: QueueOperations) -> tuple[HeldGroup, ...]:
    """Return who waits in a queue for its time, most first. Retries are not among them.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], datetime] = {}
    for one in look(family, "live", "scheduled", limit=LOOKED_THROUGH).items:
        if one.message is None or one.due_at is None:
            continue
        actor = one.message.actor_name
        key = actor, _words(str(one.message.options.get("deferred_by") or "delay"), actor)
        counts[key] += 1
        first.setdefault(key, datetime_of(one.due_at))
    return tuple(HeldGroup(*key, count, first[key]) for key, count in counts.most_common())


def _words(reason: str, actor: str) -> str:
    declared = dramatiq.get_broker().actors.get(actor)
    limit = declared.options.get(reason) if declared is not None else None
    return f"{reason.replace('_', ' ')}, {limit}" if isinstance(limit, str) else reason.replace("_", " ")
