"""Sweep of live records whose message is gone: a kill between the move of a message and its record leaves one."""

from __future__ import annotations

from typing import Final

from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.job_records import JobRecords

SWEEP: Final = script("job_sweep", folder="")
SWEPT_AT_ONCE: Final = 200


def sweep(records: JobRecords) -> int:
    """Drop live records whose message is gone, in many short calls; return their number.

    Raises:
        BrokerUnavailable: the server did not answer; the next sweep begins anew.
    """
    dropped = 0
    for queue in records.queues if records.finds_waiting else ():
        keys, cursor = records.keys.queue(queue), "0"
        while True:
            answer = records.calls.call(SWEEP, [keys.jobs, keys.progress, keys.bodies], [cursor, SWEPT_AT_ONCE])
            cursor, dropped = str(answer[0], "ascii"), dropped + int(answer[1])
            if cursor == "0":
                break
    return dropped
