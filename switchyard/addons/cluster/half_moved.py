"""Hash slots of a cluster that are half moved: operations need all keys of a queue on one node, and find them on two.

A reshard leaves a slot so for milliseconds; one that is interrupted, until somebody ends it. Reads of one key follow
the node's ``ASK``, and do not show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, finish_the_move
from switchyard.broker.health.server import ServerFinding, Severity
from switchyard.broker.redis.exchange import Word


@dataclass(frozen=True, slots=True)
class HalfMovedSlot:
    """A hash slot that is half moved.

    Args:
        number: Of the slot.
        node: Address of the one that is handing it over.
        queues: Those in it. They can be read, and start nothing.
    """

    number: int
    node: str
    queues: tuple[str, ...]


def probe(key: str) -> tuple[Word, ...]:
    """Return a command on a key, and on another one of its hash tag: an answer needs both on one node."""
    return ("EXISTS", key, f"{key}?") if "{" in key else ("EXISTS", key)


def half_moved_slots(keys: Iterable[str], answers: Iterable[Any], queues: Mapping[str, str]) -> list[HalfMovedSlot]:
    """Return the slots that are half moved, by the answers to each key's :func:`probe`.

    Args:
        queues: Key -> its queue, for those that are of one.
    """
    found: dict[tuple[int, str], list[str]] = {}
    for key, answer in zip(keys, answers, strict=True):
        if isinstance(answer, HashSlotHalfMoved):
            found.setdefault((answer.slot, answer.node), []).extend([queues[key]] if key in queues else [])
    return [HalfMovedSlot(slot, node, tuple(names)) for (slot, node), names in found.items()]


def half_moved(slots: Sequence[HalfMovedSlot]) -> list[ServerFinding]:
    """Return the finding about hash slots that are half moved: an error where a queue is in one of them."""
    if not slots:
        return []
    seen = "; ".join(
        f"hash slot {slot.number} is half moved away from node {slot.node}; {stands_still(slot.queues)}"
        for slot in slots
    )
    step = finish_the_move(slots[0].node)
    severity: Severity = "error" if any(slot.queues for slot in slots) else "warning"
    return [ServerFinding("half_moved", severity, seen, f"{step[0].upper()}{step[1:]}.", partial=True)]


def stands_still(queues: Sequence[str]) -> str:
    """Return the clause about queues that neither start nor take a job."""
    if not queues:
        return "no queue is on it"
    verbs = ("starts", "takes") if len(queues) == 1 else ("start", "take")
    return f"{', '.join(queues)} {verbs[0]} nothing and {verbs[1]} no new jobs"
