"""Purges of a queue: what waits is set aside whole, and dropped or put back in steps; moves to another queue.

A process that is killed in the middle leaves the rest set aside; any other one goes on. A step may be repeated.
"""

import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

import msgspec

from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import HIGH, LOW, NORMAL, Lease, MovingMessage, QueueOperations
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import note, read, utf8
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import Whole
from switchyard.broker.stores.history_streams import EndedJob, ended_step, fields_of
from switchyard.broker.stores.job_record import cancelled_job, is_untracked, job_of_message
from switchyard.broker.stores.job_records import JobRecords

UNDO_MS: Final = 60_000
# Other characters would make fields and keys of other names.
PURGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Messages of one call. 50 of them, with all notes and unique keys, take a slow server 2.4 ms, and one call in 5,000 10.
STEP: Final = 25
PURGED: Final = "purged"
# Entries of a history stream, of 100 rows each, from which a drop goes on more slowly.
MOST_UNWRITTEN: Final = 200
PAUSE_S: Final = 0.02
# Position of the first waiting list, and of the first sorted set, among the keys of drop_purged.
_WAITING, _DUE = 5, 14


@dataclass(frozen=True, slots=True)
class Purge:
    """Messages of a queue that are set aside.

    Args:
        count: Messages at first.
        at, until: Times of the purge, and from which they may be dropped, ms since the epoch.
        claim: ``undo`` or ``drop`` once that is decided, else "".
    """

    count: Whole
    at: Whole
    until: Whole
    by: str
    reason: str
    id: str = ""
    queue: str = ""
    claim: str = ""


FACTS: Final = msgspec.json.Decoder(Purge)


class PutBack(NamedTuple):
    """Outcome of an undo: messages in their lanes again, and dropped ones, of whose id another was sent since."""

    put_back: int
    left_out: int


def set_aside(family: QueueOperations, purge: str, *, by: str, reason: str = "", undo_ms: int = UNDO_MS) -> int:
    """Set aside what waits and what is scheduled, in every lane, undoable for ``undo_ms``; return how many messages.

    Leased messages and dead letters are not touched. A call that is repeated with its id changes nothing more.

    Raises:
        ValueError: the id has other characters than letters, digits, ``-`` and ``_``, or more than 64.
    """
    if not PURGE_ID.fullmatch(purge):
        raise ValueError(f"purge id {purge[:50]!r}: use 1 to 64 letters, digits, '-' and '_'")
    k = family.keys
    live = [k.bodies, k.notes, k.unique, *_every(k.waiting), *map(k.due, ALL_LANES)]
    keys = [k.leases, *live, *map(k.parked, ALL_LANES), k.purges, *_aside_keys(family, purge), k.jobs]
    while True:
        owners = family.owners()
        args: list[Word] = [purge, undo_ms, by, reason, *owners]
        count = int(family.calls.call(script("set_aside"), [*keys, *map(k.hold, owners)], args))
        if count >= 0:
            return count


def purges(family: QueueOperations) -> list[Purge]:
    """Return the purges whose messages are still set aside, oldest first; those that cannot be read are left out."""
    key = family.keys.purges
    [answer] = family.calls.look([("HGETALL", key)])
    fields = {utf8(name): value for name, value in zip(*[iter(answer)] * 2, strict=False)}
    found = []
    for name, text in fields.items():
        if PURGE_ID.fullmatch(name) and (facts := read(FACTS, text, key)) is not None:
            claim = str(fields.get(f"{name}:claim", b""), "ascii", "replace")
            found.append(replace(facts, id=name, queue=family.keys.queue, claim=claim))
        elif ":" not in name:
            note(key, f"{name!r} is not a purge")
    return sorted(found, key=lambda purge: purge.at)


def undo(family: QueueOperations, purge: str, *, step: int = STEP) -> PutBack:
    """Put the messages of a purge back in steps of at most 500, before those that were sent since.

    A message whose id was sent again since is left out: the newer one stays as it is, whatever has become of it.

    Raises:
        LookupError: there is no such purge, or its messages are being dropped.
    """
    if not PURGE_ID.fullmatch(purge):
        raise LookupError(f"there is no purge {purge[:50]!r}: ids are 1 to 64 letters, digits, '-' and '_'")
    counts = {found.id: found.count for found in purges(family)}
    if (answer := _claim(family, purge, "undo")) <= 0:
        raise LookupError(f"purge {purge} of {family.keys.queue} " + ("is over" if answer == 0 else "is being dropped"))
    k = family.keys
    keys = [k.bodies, k.notes, k.unique, *_every(k.waiting), *map(k.due, ALL_LANES), *map(k.wakeup, ALL_LANES)]
    keys += [*k.done, k.dead_letters, k.jobs, k.purges, *_aside_keys(family, purge)]
    more, left_out = 1, 0
    while more:
        more, total = family.calls.call(script("put_back"), keys, [purge, step])
        left_out = max(left_out, total)
    return PutBack(max(counts.get(purge, 0) - left_out, 0), left_out)


def drop(
    family: QueueOperations,
    purge: str,
    *,
    dropped: Callable[[Lane, Sequence[bytes], Sequence[bytes | None]], None] = lambda lane, ids, bodies: None,
    step: int = STEP,
) -> Iterator[int]:
    """Drop the messages of a purge for good, when the time for undoing is over; yield the number after each step.

    ``dropped`` is called before each step with the lane, ids and bodies of its messages; after a kill with some again.
    """
    if _claim(family, purge, "drop") <= 0:
        return
    aside = _aside_keys(family, purge)
    bodies, lanes = aside[0], [lane for lane in ALL_LANES for _ in range(3)] + list(ALL_LANES)
    total = 0
    for place, (lane, key) in enumerate(zip(lanes, aside[3:-1], strict=True), start=_WAITING):
        read = "LRANGE" if place < _DUE else "ZRANGE"
        while ids := family.calls.command(read, key, 0, step - 1):
            dropped(lane, ids, family.calls.command("HMGET", bodies, *ids))
            if _drop(family, purge, place, ids) >= 0:
                total += len(ids)
                yield total
    _drop(family, purge, 0, ())


def finish(family: QueueOperations, records: JobRecords | None = None) -> int:
    """Resume interrupted purges: complete undos, drop those whose time is over; return the number of messages.

    Called every second by the leading scheduler; any number of processes may do it at once. In ``records`` the jobs of
    dropped messages become cancelled, with the reason ``purged``; not those that keep no record, were cancelled, or
    whose id was sent again since. While much of the history is still to be written into the database, each step waits a
    moment.
    """

    def record(purge: str, lane: Lane, ids: Sequence[bytes], bodies: Sequence[bytes | None]) -> None:
        if records is not None:
            k = family.keys
            notes = family.calls.command("HMGET", k.aside(purge)[1], *(b"cancel:" + id_ for id_ in ids))
            # Ids under which a message was sent since the purge: their records are those of that message.
            sent = family.calls.pipeline([("HMGET", key, *ids) for key in (k.bodies, *k.done, k.dead_letters)])
            again = {
                id_ for answer in (notes, *sent) for id_, found in zip(ids, answer, strict=True) if found is not None
            }
            jobs = [
                _purged(family, lane, id_, body)
                for id_, body in zip(ids, bodies, strict=True)
                if body and id_ not in again and not is_untracked(fields_of(body))
            ]
            records.write([ended_step(family.keys.queue, job) for job in jobs])
            if family.calls.command("XLEN", family.keys.history) > MOST_UNWRITTEN:
                time.sleep(PAUSE_S)

    done = 0
    for purge in purges(family):
        with suppress(LookupError):  # another process has just ended it
            if purge.claim == "undo":
                done += sum(undo(family, purge.id))
            else:
                done += max(drop(family, purge.id, dropped=partial(record, purge.id)), default=0)
    return done


def _purged(family: QueueOperations, lane: Lane, id_: bytes, body: bytes) -> EndedJob:
    ended = cancelled_job(job_of_message(utf8(id_), family.keys.queue, body, due_at=None))
    return msgspec.structs.replace(ended, reason=PURGED, lane=family.keys.lane_name(lane))


def _claim(family: QueueOperations, purge: str, claim: str) -> int:
    return int(family.calls.call(script("claim_purge"), [family.keys.purges], [purge, claim]))


def _drop(family: QueueOperations, purge: str, place: int, ids: Sequence[bytes]) -> int:
    keys = [family.keys.purges, *_aside_keys(family, purge)]
    return int(family.calls.call(script("drop_purged"), keys, [purge, place, *ids]))


def _aside_keys(family: QueueOperations, purge: str) -> list[str]:
    k = family.keys
    waiting = [key for lane in ALL_LANES for key in k.aside_waiting(purge, lane)]
    return [*k.aside(purge), *waiting, *(k.aside_due(purge, lane) for lane in ALL_LANES), k.aside_jobs(purge)]


def _every(waiting: Callable[[Lane], tuple[str, str, str]]) -> list[str]:
    return [key for lane in ALL_LANES for key in waiting(lane)]


BATCH: Final = 200


class Relocated(msgspec.Struct, frozen=True):
    """Progress of a relocation: messages that waited at first, that were read, and that were moved."""

    looked_at: int
    moved: int
    waiting: int


def relocate(
    source: QueueOperations, target: QueueOperations, *, actor: str, lane: Lane = "live"
) -> Iterator[Relocated]:
    """Move what waits for an actor in a lane to the same lane of another family; yield the progress after each batch.

    The waiting list is rotated once: messages that stay go to its end, in their order. Workers continue meanwhile, and
    a paused queue stays paused. The two queues may lie on different nodes, so a message is put into the new one before
    it is dropped from the old one: a kill in between leaves up to 200 messages in both queues,
    until the call is repeated. A message keeps its priority, its crashes, a request to cancel it, and its unique key,
    unless another message holds the key in the new queue.
    """
    owner = f"relocate.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}/{lane}"
    source.join(owner)
    looked_at = moved = 0
    waiting = [administration.depth(source, lane, level) for level in (HIGH, NORMAL, LOW)]
    for level, depth in zip((HIGH, NORMAL, LOW), waiting, strict=True):
        left = depth
        while left > 0 and (taken := administration.take(source, owner, min(BATCH, left), level=level)):
            going, staying = _sorted(taken, actor, source.keys.lane_name(lane))
            to_place = going
            while to_place:
                administration.place(target, to_place, lane=lane, level=level)
                to_place = administration.forget(source, owner, to_place)
            if going:  # a retry's record; from here on its message in the other queue says where the job is
                ids = [one.lease.id for one in going]
                source.calls.pipeline([("HDEL", key, *ids) for key in (source.keys.jobs, source.keys.progress)])
            source.release(owner, staying, side="tail")
            source.renew([owner])
            left -= len(taken)
            looked_at += len(taken)
            moved += len(going)
            yield Relocated(looked_at, moved, sum(waiting))
    source.reclaim(owner)


def _sorted(taken: list[MovingMessage], actor: str, lane_name: str) -> tuple[list[MovingMessage], list[Lease]]:
    going: list[MovingMessage] = []
    staying: list[Lease] = []
    for one in taken:
        try:
            message = codec.decode(one.body or b"", message_id=codec.ANY_ID, lane=lane_name)
        except codec.UnreadableMessage:  # a consumer moves it to the quarantine
            message = None
        if message is not None and message.actor_name == actor:
            going.append(one)
        else:
            staying.append(one.lease)
    return going, staying
