"""Place of one message in its queue family: three round trips, however many messages wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from switchyard.broker.admin.browse import compared_fields_of
from switchyard.broker.admin.stats import pause_of
from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import moment, read
from switchyard.broker.shapes import ActorPause, QueuePause

# Ids that the server compares at each end of a waiting list: 0.1 ms. A place between them is not searched for.
COMPARED: Final = 10_000
# Messages that start before it and are counted by actor.
SAMPLED: Final = 200


class Place(msgspec.Struct, frozen=True):
    """Where a message is, and what stops its queue.

    Args:
        lane: ``None`` where it neither waits nor is scheduled: it has ended meanwhile, or a purge set it aside.
        due_at: Of a scheduled one, ms since the epoch by the server's clock; of one that is put off later than any.
        ahead: Messages of its lane that start before it; with ``more`` at least so many.
        actors: Of the first of them, at most ``SAMPLED``.
        pauses: Of actors, and open circuits; those that have ended are among them until a worker fetches.
    """

    lane: Lane | None
    due_at: int | None
    ahead: int
    more: bool
    actors: Counter[str]
    pause: QueuePause | None
    pauses: tuple[ActorPause, ...]


def place_of(family: QueueOperations, message_id: str, at: int) -> Place:
    """Return the place of a message that no worker holds at a time, ms since the epoch: what is due by then waits."""
    keys = family.keys
    reads: list[tuple[Word, ...]] = [
        ("GET", keys.paused),
        ("HGETALL", keys.actor_pauses),
        ("HEXISTS", keys.bodies, message_id),
    ]
    for lane in ALL_LANES:
        due = keys.due(lane)
        reads += [("ZSCORE", due, message_id), ("ZREVRANK", due, message_id), ("ZCARD", due)]
        for key in keys.waiting(lane):
            reads.append(("LLEN", key))
            reads += [("LPOS", key, message_id, "RANK", end, "MAXLEN", COMPARED) for end in (1, -1)]
    paused, pauses, is_there, *of_lanes = family.calls.look(reads)
    found = [read(ACTOR_PAUSE, text, keys.actor_pauses) for text in pauses[1::2]]
    place, due_at, ahead, more, lists = _found(family, of_lanes, at, is_there=bool(is_there))
    sample = family.calls.look([("LRANGE", key, 0, SAMPLED - 1) for key in lists]) if ahead else []
    ids = [id_ for part in sample for id_ in part][: min(ahead, SAMPLED)]
    bodies = family.calls.look([("HMGET", keys.bodies, *ids)])[0] if ids else []
    read_fields = (compared_fields_of(body) for body in bodies if body is not None)
    return Place(
        lane=place,
        due_at=due_at,
        ahead=ahead,
        more=more,
        actors=Counter(fields.actor for fields in read_fields if fields is not None),
        pause=pause_of(paused, keys.paused),
        pauses=tuple(each for each in found if each is not None),
    )


_Found = tuple[Lane | None, int | None, int, bool, Sequence[str]]


def _found(family: QueueOperations, answers: Sequence[Any], at: int, *, is_there: bool) -> _Found:
    """Return lane, due time, number ahead and whether there are more, and the lists that start with those ahead."""
    width = len(answers) // len(ALL_LANES)
    found: _Found = (None, None, 0, False, ())
    for number, lane in enumerate(ALL_LANES):
        score, behind, scheduled, *lists = answers[number * width : (number + 1) * width]
        keys, before = family.keys.waiting(lane), 0
        lengths = [int(length or 0) for length in lists[::3]]
        if score:
            due_at = moment(score)
            # Once it is due it goes behind what waits, of the normal priority or a higher one, and what was due before.
            ahead = sum(lengths[:2]) + max(scheduled - 1 - int(behind or 0), 0) if due_at <= at else 0
            return lane, due_at, ahead, False, keys[:2]
        for level, length in enumerate(lengths):
            places = [place for place in lists[3 * level + 1 : 3 * level + 3] if type(place) is int]
            if places:
                return lane, None, before + places[0], False, keys[: level + 1]
            if length > 2 * COMPARED and found[0] is None and is_there:
                found = lane, None, before + COMPARED, True, keys[: level + 1]
            before += length
    return found
