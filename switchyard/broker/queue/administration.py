"""Operators' acts on a queue family, off the ordinary way of a message: one Lua script each, atomic and repeatable.

Every function may raise what :meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from switchyard.broker.errors import QueueFull, not_quarantined
from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue.operations import AT_ONCE, NORMAL, Lease, MovingMessage, QueueOperations, lane_of
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import ActorPause

_lifted: ContextVar[bool] = ContextVar("switchyard_limits_lifted", default=False)


@contextmanager
def limits_lifted() -> Iterator[None]:
    """Let the current thread enqueue into full queues: a step that follows a job, never work that is new.

    A worker that waited for room instead might wait for itself.
    """
    token = _lifted.set(True)
    try:
        yield
    finally:
        _lifted.reset(token)


# Whether what the current thread enqueues follows a job: refusing it would lose it. Read at each send.
follows_a_job: Final[Callable[[], bool]] = _lifted.get


class DepthLimits:
    """Messages that queues may hold, waiting or scheduled, by name; others hold any number."""

    def __init__(self, depths: Mapping[str, int]) -> None:
        self._depths = dict(depths)

    def of(self, queue_name: str) -> int:
        """Return the limit for the current thread, 0 for none."""
        depth = self._depths.get(queue_name, 0)
        return 0 if depth == 0 or _lifted.get() else depth


# Answer of a script that was called with other owners than the queue has.
OWNERS_CHANGED: Final = -3


def pause(family: QueueOperations, *, until_ms: int = 0, by: str = "", reason: str = "") -> bool:
    """Pause the queue; ``False`` when it was paused already and stays as it was.

    Args:
        until_ms: Time at which it resumes by itself, ms since the epoch by the server's clock; 0 for none.
        by, reason: For people. A reason or a time replaces those of an earlier pause.

    Raises:
        ValueError: ``until_ms`` is over.
    """
    changed = int(family.calls.call(script("pause"), [family.keys.paused], [until_ms, by, reason]))
    if changed < 0:
        raise ValueError("the end of the pause is over by the server's clock; give a later one")
    return bool(changed)


def resume(family: QueueOperations) -> bool:
    """Resume the queue; ``False`` when it was not paused."""
    keys = [family.keys.paused, *map(family.keys.wakeup, ALL_LANES)]
    return bool(family.calls.call(script("resume"), keys, []))


# Every fetch of a family with pauses reads all of them.
MOST_ACTOR_PAUSES: Final = 100


def pause_actor(family: QueueOperations, pause: ActorPause) -> bool:
    """Start no message of an actor, or of one value of its argument; ``False`` when that was so and stays as it was.

    Messages of it that are leased, and did not start, go back to their lane; what runs goes on.

    Args:
        pause: Without ``since`` and ``token``. An end or a reason replaces those of an earlier pause.

    Raises:
        ValueError: its ``until`` is over, or there are 100 pauses already.
    """
    stored: dict[str, Any] = {"actor": pause.actor}
    if pause.argument:
        stored |= {"argument": pause.argument, "value": pause.value}
        stored |= {"position": pause.position} if pause.position else {}
    text = msgspec.json.encode(stored | {"by": pause.by, "reason": pause.reason})
    args: list[Word] = [pause.field, pause.until, "1" if pause.reason else "", text, MOST_ACTOR_PAUSES]
    changed = int(family.calls.call(script("pause_actor"), [family.keys.actor_pauses, family.keys.token], args))
    if changed == -1:
        raise ValueError("the end of the pause is over by the server's clock; give a later one")
    if changed == -2:
        raise ValueError(f"there are {MOST_ACTOR_PAUSES} pauses of actors already; resume one, or pause the queue")
    return bool(changed)


def resume_actor(family: QueueOperations, field: str = "") -> bool:
    """End a pause of an actor, named by its ``field``, and make due what pauses that have ended had put off.

    They are due in the order in which they were put off, which is that of their queue. Returns ``False`` when the pause
    was over, or there was none. Interrupted, it is completed by the next call, also by a worker's next fetch.
    """
    k = family.keys
    keys = [k.actor_pauses, *map(k.due, ALL_LANES), *map(k.wakeup, ALL_LANES)]
    keys += [k.waiting(lane)[1] for lane in ALL_LANES]
    ended, more = family.calls.call(script("resume_actor"), keys, [field, AT_ONCE])
    while more:
        _, more = family.calls.call(script("resume_actor"), keys, ["", AT_ONCE])
    return bool(ended)


CANCELLED_AT_ONCE: Final = 100
# Fields that the server looks up in one call: ids times owners.
MOST_LOOKED_UP: Final = 10_000


def cancel(
    family: QueueOperations, records: Mapping[str, bytes], *, nonce: str = "1", limits: Sequence[Word] = (0, 0, 0)
) -> dict[str, str]:
    """Keep messages from starting, in calls that the server answers within milliseconds.

    Args:
        records: Ids, each with the record of its job as cancelled, which is its row for the history as well; empty for
            none. It is written in the step that cancels the message.
        nonce: A repeated call with it gets the same answers, and adds no row.
        limits: ``ended_ms``, ``records_bytes`` (0: rows alone are written) and ``history_bytes`` of the family.

    Returns:
        For each id ``cancelled``: it never starts; ``asked``: it is leased, and its cancellation is requested; ``was
        cancelled``, ``was asked``: another call did so; ``unknown``: it is not here.
    """
    k = family.keys
    keys = [k.bodies, *map(k.due, ALL_LANES), *k.done, k.notes, k.unique, k.leases, k.ended, k.history, k.purges]
    answers: dict[str, str] = {}
    left = list(records)
    while left:
        owners = family.owners()
        batch = left[: max(1, min(CANCELLED_AT_ONCE, MOST_LOOKED_UP // (len(owners) + 1)))]
        args: list[Word] = [nonce, *limits, len(owners), *owners]
        args += chain.from_iterable((id_, records[id_]) for id_ in batch)
        answer = family.calls.call(script("cancel"), [*keys, *map(k.hold, owners)], args)
        if answer != b"owners":
            answers |= {id_: str(word, "ascii") for id_, word in zip(batch, answer, strict=True)}
            left = left[len(batch) :]
    return answers


def due_now(family: QueueOperations, message_id: str, *, as_read: bytes, body: bytes) -> int:
    """Make a scheduled message due at once, with a new body.

    Returns:
        1: it is due, also by an earlier call; 0: it waits or is leased; -1: it is not here; -2: its body has changed.
    """
    k = family.keys
    keys = [k.bodies, *map(k.due, ALL_LANES), *map(k.wakeup, ALL_LANES)]
    return int(family.calls.call(script("due_now"), keys, [message_id, as_read, body]))


def amend(
    family: QueueOperations, message_id: str, *, as_read: bytes, body: bytes, due_at_ms: int | None = None
) -> int:
    """Replace the body of a message that waits or is scheduled, and the due time of a scheduled one.

    Returns:
        1: it is amended, also by an earlier call; 0: it is leased; -1: it is not here; -2: its body has changed; -4: it
        waits, and has no due time to change.
    """
    k = family.keys
    keys = [k.bodies, *map(k.due, ALL_LANES), *map(k.wakeup, ALL_LANES), k.leases]
    while True:
        owners = family.owners()
        words = [message_id, as_read, body, "" if due_at_ms is None else due_at_ms, *owners]
        answer = int(family.calls.call(script("amend"), keys + [k.hold(owner) for owner in owners], words))
        if answer != OWNERS_CHANGED:
            return answer


def restore(family: QueueOperations, message_id: str, *, letter: str) -> bool:
    """Put a dropped dead letter back into the dead list; ``False`` when a message of its id is in the queue."""
    k = family.keys
    return bool(family.calls.call(script("restore"), [k.dead_letters, k.dead, k.bodies, *k.done], [message_id, letter]))


def unquarantine(
    family: QueueOperations,
    message_id: str,
    *,
    lane: Lane,
    as_read: bytes,
    body: bytes,
    level: int = NORMAL,
    limit: int = 0,
) -> None:
    """Move a quarantined message back to its lane, or drop it where ``body`` is empty.

    Raises:
        NotFound: it is not there; or, with a body, a message of its id is in the queue.
        QueueFull: the lane holds ``limit`` messages, waiting or scheduled (0: any number); the message stays.
    """
    k = family.keys
    keys = [k.quarantine, k.quarantined_bodies, k.bodies, *k.waiting(lane), k.wakeup(lane), k.notes, *k.done]
    args: list[Word] = [message_id, as_read, uuid.uuid4().hex, body, level, limit]
    answer = int(family.calls.call(script("unquarantine"), [*keys, k.due(lane)], args))
    if answer < 0:
        raise QueueFull(k.queue, -answer, limit)
    if answer != 1:
        raise not_quarantined(k.queue, message_id)


def flush(family: QueueOperations) -> None:
    """Drop every message that waits, is scheduled or is leased; dead letters stay."""
    k = family.keys
    lanes = [key for lane in ALL_LANES for key in (*k.waiting(lane), k.due(lane), k.wakeup(lane), k.parked(lane))]
    dropped = 0
    while not dropped:
        owners = family.owners()
        keys = [k.leases, k.bodies, *lanes, k.notes, k.unique, k.slots, k.waits, k.turns]
        keys += [*k.fair_lines("live"), *map(k.hold, owners)]
        dropped = family.calls.call(script("flush"), keys, owners)
    family.calls.command("UNLINK", k.jobs, k.progress)  # records of messages that are gone count for nothing


def depth(family: QueueOperations, lane: Lane, level: int) -> int:
    return int(family.calls.command("LLEN", family.keys.waiting(lane)[level - 1]))


def take(family: QueueOperations, owner: str, count: int, *, level: int) -> list[MovingMessage]:
    """Lease up to ``count`` waiting messages of a priority, in order to move them, also while the queue is paused.

    Raises:
        LookupError: the owner has no lease.
    """
    k, lane = family.keys, lane_of(owner)
    keys = [k.bodies, k.waiting(lane)[level - 1], k.leases, k.hold(owner), k.token, k.notes]
    answer = family.calls.call(script("take"), keys, [owner, count])
    if answer == b"gone":
        raise LookupError(f"{owner} has no lease in {k.queue}; join first, and renew within 15 s")
    return [
        MovingMessage(Lease(owner, id_, token), body, key, crashes, asked == b"1")
        for id_, token, body, key, crashes, asked in zip(*[iter(answer)] * 6, strict=True)
    ]


def place(family: QueueOperations, taken: Sequence[MovingMessage], *, lane: Lane, level: int) -> None:
    """Put messages taken from another queue (at most 500, with bodies) into a lane, with their notes.

    One that is known there stays as it is. A message whose unique key another one holds there is put without the key:
    both were accepted.
    """
    k = family.keys
    keys = [k.bodies, *k.waiting(lane), k.wakeup(lane), *k.done, k.dead_letters, k.unique, k.notes]
    args: list[Word] = [level]
    for one in taken:
        args += (one.lease.id, one.body or b"", one.unique_key, one.crashes, "1" if one.cancel_requested else "")
    family.calls.call(script("place"), keys, args)


def forget(family: QueueOperations, owner: str, taken: Sequence[MovingMessage]) -> list[MovingMessage]:
    """Drop leased messages (at most 500) that were moved to another queue, without recording them as finished.

    Returns those whose cancellation was requested since they were taken. They stay until the other queue has been told.
    """
    k = family.keys
    args: list[Word] = []
    for one in taken:
        args += (one.lease.id, one.lease.token, "1" if one.cancel_requested else "")
    asked = family.calls.call(script("forget"), [k.hold(owner), k.bodies, k.notes, k.unique], args)
    return [replace(taken[position - 1], cancel_requested=True) for position in asked]
