"""Start of scheduled jobs before their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from switchyard.broker.admin.cancel_many import STOPS, Stop, WalkPage, readable
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys.queue_keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.job_records import JobRecords

SCHEDULES: Final = tuple(stop for stop in STOPS if stop.place == "scheduled")

# Put off for a reason that lasts: a worker would put it off again.
HELD: Final = ("rate_limit", "parked")


def run_now(facilities: Facilities, job_id: str) -> str:
    """Make a scheduled job, or one that waits for its retry, due at once. No attempt is spent.

    Returns:
        ``due``: it starts as soon as a slot is free; ``waiting``: it waits or runs already; ``held``: a rate limit
        holds it, or no worker knows its actor; ``ended``; ``unknown``: no job has the id, or it cannot be found.
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


LIVE: Final[tuple[Lane, ...]] = ("live", "alone")


def state_counts(families: Sequence[QueueOperations], records: JobRecords) -> dict[str, int]:
    """Return how many messages are ``queued``, ``scheduled``, ``retrying`` and ``running``, as the list of jobs says.

    A message that a worker has fetched and not started is queued. A waiting one that was cancelled counts until it is
    dropped.
    """
    counts = dict.fromkeys(("queued", "scheduled", "retrying", "running"), 0)
    if not families:
        return counts
    calls = families[0].calls
    places = [place for family in families for place in _places(family.keys)]
    leases = [("ZRANGE", family.keys.leases, 0, -1) for family in families]
    answers = calls.pipeline([*((command, key) for _, command, key in places), *leases])
    owners = answers[len(places) :]
    for (state, _, _), length in zip(places, answers, strict=False):
        counts[state] += length
    holds = [
        family.keys.hold(owner.decode()) for family, found in zip(families, owners, strict=True) for owner in found
    ]
    held = [
        str(id_, "utf-8", "replace") for found in calls.pipeline([("HKEYS", hold) for hold in holds]) for id_ in found
    ]
    queues = [family.keys.queue for family in families]
    for known in records.states([id_ for id_ in held if id_ != "#"], queues=queues):
        counts["running" if known in ("running", None) else "queued"] += 1
    return counts


def _places(keys: QueueKeys) -> list[tuple[str, str, str]]:
    """Return the lists and schedules of a family: state of their messages, command that counts them, key."""
    found = []
    for lane in ALL_LANES:
        waits, later = ("queued", "scheduled") if lane in LIVE else ("retrying", "retrying")
        found += [(waits, "LLEN", key) for key in keys.waiting(lane)]
        found.append((later, "ZCARD", keys.due(lane)))
    return found
