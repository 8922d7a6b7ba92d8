"""Cancellation of jobs, whatever their places: of one, and of many of one queue family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from dramatiq.message import Message

from switchyard.broker.admin.browse import Listed, SeenMessage, with_bodies
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue.operations import NO_RECORD, CancelRecord, QueueOperations
from switchyard.broker.redis.own_keys import moment, utf8
from switchyard.broker.stores.job_record import Job, cancelled_job
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import ended_step


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step; also one without a record.

    Returns:
        ``unknown`` (a job without a record may have ended), ``ended`` (too late), ``asked`` (a worker holds it) or
        ``cancelled`` (it never starts).
    """
    record = facilities.records.read(job_id)
    if record is None:
        return _cancel(facilities, job_id)
    if record.end_recorded:
        return "ended"
    place = _cancel(facilities, job_id, record.queue, _end_of(facilities.records, record))
    recorded = place == "cancelled" and facilities.transport.finds_waiting
    answer = facilities.records.cancel(job_id, place=place, known=record, row=not recorded)
    if answer != "unknown":
        return answer
    return "unknown" if (now := facilities.records.read(job_id)) is None or not now.ended else "ended"


def _cancel(facilities: Facilities, job_id: str, queue: str = "", end: CancelRecord = NO_RECORD) -> str:
    """Ask the queue that has the job, then the others: it may have been relocated meanwhile."""
    names = [name for name in facilities.records.queues if name != queue]
    for name in [queue, *names] if queue else names:
        answer = facilities.transport.cancel(name, job_id, end=end)
        if answer in ("cancelled", "asked"):
            return answer
    return "unknown"


def _end_of(records: JobRecords, known: Job) -> CancelRecord:
    """Return the cancellation of a job, recorded with its message: a kill comes before both or after both."""
    share = records.limits.records_bytes // max(len(records.queues), 1)
    record = ended_step(known.queue, cancelled_job(known)).record
    return CancelRecord(record, records.limits.ended_ms, share, records.history_share)


def find_unrecorded(facilities: Facilities, job_id: str) -> Message[Any] | None:
    """Return the message of a job that keeps no record, while it waits, is scheduled or runs; one command a queue.

    Its ``queue_name`` is that of its queue, also when it is in the retry lane.
    """
    found = (facilities.transport.find_message(queue.name, job_id) for queue in facilities.yard.queues)
    return next((message for message in found if message is not None), None)


class Stop(NamedTuple):
    """A list of a family that a walk reads; ``level`` is the priority of a waiting list, 1 to 3, else 0."""

    place: Literal["scheduled", "waiting", "leased"]
    lane: Lane
    level: int = 0


STOPS: Final = (
    *(Stop("scheduled", lane) for lane in ALL_LANES),
    *(Stop("waiting", lane, level) for lane in ALL_LANES for level in (1, 2, 3)),
    Stop("leased", "live"),
)


def look(
    family: QueueOperations, stop: Stop, after: list[Any] | None, limit: int
) -> tuple[list[SeenMessage], list[Any] | None]:
    """Return a page of the messages of a list that can be read and whose cancellation nobody has requested.

    ``after`` is the place that the page before returned; ``None`` at the beginning of the list, and at its end.
    """
    if stop.place == "waiting":
        ids, following = _waiting(family, stop, after, limit)
    elif stop.place == "scheduled":
        ids, following = _scheduled(family, stop.lane, after, limit)
    else:
        ids, following = _running(family, after, limit)
    notes = [note + id_ for id_ in ids for note in (b"cancel:", b"asked:")]
    noted = family.calls.command("HMGET", family.keys.notes, *notes) if notes else []
    asked = [any(note is not None for note in pair) for pair in zip(noted[::2], noted[1::2], strict=True)]
    left = [Listed(family, stop.lane, stop.place, id_) for id_, gone in zip(ids, asked, strict=True) if not gone]
    return [seen for seen in with_bodies(left) if seen.message is not None], following


def state_of(seen: SeenMessage) -> str:
    """Return the state of a message on the walk, as in job records."""
    if seen.place == "leased":
        return "running"
    if seen.message is not None and int(seen.message.options.get("attempts", 0)) > 0:
        return "retrying"
    return "scheduled" if seen.place == "scheduled" else "queued"


def count(family: QueueOperations) -> int:
    """Return how many messages wait, are scheduled or run."""
    return int(family.calls.command("HLEN", family.keys.bodies))


def _waiting(family: QueueOperations, stop: Stop, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read a list from its tail: messages leave it at the head, and new ones only push the others onward."""
    passed = after[0] if after else 0
    key = family.keys.waiting(stop.lane)[stop.level - 1]
    ids: list[bytes] = family.calls.command("LRANGE", key, -passed - limit, -passed - 1)
    return ids[::-1], [passed + len(ids)] if len(ids) == limit else None


def _scheduled(family: QueueOperations, lane: Lane, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read the scheduled ones from the latest: they leave the set at the earliest."""
    key = family.keys.due(lane)
    start = 0
    if after:
        rank = family.calls.command("ZREVRANK", key, after[1])
        start = int(family.calls.command("ZCOUNT", key, f"({after[0]}", "+inf")) if rank is None else rank + 1
    answer = family.calls.command("ZREVRANGE", key, start, start + limit - 1, "WITHSCORES")
    ids = answer[::2]
    if len(ids) < limit:
        return ids, None
    return ids, [moment(answer[-1]), utf8(ids[-1])]


def _running(family: QueueOperations, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read leases by their tokens, which grow."""
    passed = after[0] if after else -1
    leases = [(int(lease.token), lease.id) for owner in family.owners() for lease in family.held(owner)]
    chosen = sorted(pair for pair in leases if pair[0] > passed)[:limit]
    return [id_ for _, id_ in chosen], [chosen[-1][0]] if len(chosen) == limit else None
