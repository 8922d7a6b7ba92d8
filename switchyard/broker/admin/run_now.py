"""Start of scheduled jobs before their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from switchyard.broker.admin.cancel_many import STOPS, Stop, WalkPage, readable
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import QueueOperations

SCHEDULES: Final = tuple(stop for stop in STOPS if stop.place == "scheduled")

# Put off for a reason that lasts: a worker would put it off again.
HELD: Final = ("rate_limit", "parked")


def run_now(facilities: Facilities, job_id: str) -> str:
    """Make a scheduled job, or one that waits for its retry, due at once. No attempt is spent.

    Returns:
        ``due``: it starts as soon as a slot is free; ``waiting``: it waits or runs already; ``held``: a rate limit
        holds it, or no worker knows its actor; ``ended``; ``unknown``: no job has the id, or it cannot be found.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is not None and (record.ended or record.end_recorded):
        return "ended"
    if record is not None and record.state == "scheduled" and record.reason in HELD:
        return "held"
    first = record.queue if record is not None else ""
    # Its own queue first, then the others: it may have been relocated meanwhile.
    for queue in sorted(facilities.records.queues, key=lambda name: name != first):
        answer = facilities.transport.due_now(queue, job_id)
        if answer != "unknown":
            return answer
    return "unknown"


def look_later(family: QueueOperations, stop: Stop, after: Sequence[Any] | None, limit: int) -> WalkPage:
    """Return the next page of what is not due yet in a schedule, the latest first.

    Those that are made due between two pages leave the walk, and move no other one in it.
    """
    key, earliest = family.keys.due(stop.lane), f"({now_ms()}"
    top = after[0] if after else "+inf"
    offset = 0
    fresh: list[tuple[str, int]] = []
    pairs = [("", 0)] * limit
    while not fresh and len(pairs) == limit:
        words = ("ZREVRANGEBYSCORE", key, top, earliest, "WITHSCORES", "LIMIT", offset, limit)
        answer = family.calls.command(*words)
        pairs = [
            (str(id_, "utf-8", "replace"), int(float(at))) for id_, at in zip(answer[::2], answer[1::2], strict=True)
        ]
        # Of one time they are in the order of their ids.
        fresh = [(id_, at) for id_, at in pairs if not after or (at, id_) < (after[0], after[1])]
        offset += limit
    found = readable(family, stop, [id_.encode() for id_, _ in fresh]) if fresh else []
    following = [pairs[-1][1], pairs[-1][0]] if len(pairs) == limit else None
    return WalkPage(found, following, len(fresh))
