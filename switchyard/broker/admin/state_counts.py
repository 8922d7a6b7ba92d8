"""Counts of unfinished messages by their state, over many queue families, in a few round trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from switchyard.broker.keys.queue_keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.job_records import JobRecords

LIVE: Final[tuple[Lane, ...]] = ("live", "alone")


def state_counts(families: Sequence[QueueOperations], records: JobRecords) -> dict[str, int]:
    """Return how many messages are ``queued``, ``scheduled``, ``retrying`` and ``running``, as the list of jobs says.

    A message that a worker has fetched and not started is queued. A waiting one that was cancelled counts until it is
    dropped.

    Raises:
        BrokerUnavailable: the server did not answer.
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
