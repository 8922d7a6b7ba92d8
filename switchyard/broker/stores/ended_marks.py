"""Marks of ended jobs that were sent with an id of their own: an id is not run again after its record has left.

Records of ended jobs share a budget and are kept for an hour; an ``Idempotency-Key`` is kept for a day. A mark is
written in the same step as the job's end, and lies outside of the budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls

# Longer than an Idempotency-Key, whose claim is older than the end of its job.
MARK_TTL_MS: Final = 25 * 3_600_000


def is_marked(calls: RedisCalls, keys: Keys, queues: Iterable[str], job_id: str) -> bool:
    """Return whether a job of these queues has left a mark of its end, in one round trip.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    return any(calls.pipeline([("EXISTS", keys.queue(queue).ended_mark(job_id)) for queue in queues]))
