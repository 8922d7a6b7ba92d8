"""Barriers of groups with completion callbacks: each counts the ids of the jobs that have succeeded.

Dramatiq's own barrier counts calls. A job that runs again after a crash would be counted twice there, and the callbacks
be sent while another job still runs.
"""

from __future__ import annotations

import threading
from typing import Final, Literal

from dramatiq.rate_limits import RateLimiterBackend

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

COUNT: Final = script("group_count", folder="")
ANSWERS: Final[dict[int, Literal["unknown", "open", "complete"]]] = {-1: "unknown", 0: "open", 1: "complete"}


class GroupRun(threading.local):
    """The run of a group in the current thread: how many jobs are still to be sent, and the ids of those that were."""

    def __init__(self) -> None:
        self.begin("", 0)

    def begin(self, group: str, jobs: int) -> None:
        self._group, self._left, self._ids = group, jobs, set[str]()

    def sends(self, group: str) -> bool:
        """Whether the group's jobs are being sent."""
        return self._left > 0 and group == self._group

    def is_repeated(self, job_id: str) -> bool:
        """Note that a job is sent; return whether one of its id was sent before."""
        repeated = job_id in self._ids
        self._ids.add(job_id)
        self._left -= 1
        return repeated


class GroupBarriers(RateLimiterBackend):
    """Barriers by the id that ``dramatiq.group`` makes for each run. Every method may be repeated.

    As a rate limiter's backend it has what ``group.run`` calls: :meth:`add`. ``run`` is what the current thread sends.
    """

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys
        self.run = GroupRun()

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Make the barrier of a group's run with ``value`` jobs, kept ``ttl`` ms after the last one that succeeded."""
        if value < 1:  # reached with python -O, which leaves out Dramatiq's own assertion
            raise ValueError("group: it has no jobs after which a callback is sent; send the callback itself")
        self.run.begin(key, value)
        name = self._keys.group(key)
        made, _ = self._calls.pipeline([("HSETNX", name, "size", value), ("PEXPIRE", name, ttl)])
        return bool(made)

    def count(self, group: str, job_id: str, *, ttl_ms: int) -> Literal["unknown", "open", "complete"]:
        """Count a job as succeeded, once. Any name that is not used twice does for one that never runs.

        Returns:
            ``complete`` when all have succeeded and :meth:`note_sent` was not called; ``unknown`` when there is no
            such barrier, or no longer.
        """
        return ANSWERS[int(self._calls.call(COUNT, [self._keys.group(group)], [job_id, ttl_ms]))]

    def note_sent(self, group: str, *, ttl_ms: int) -> None:
        """Note that the callbacks of a group were sent; the ids of its jobs are deleted."""
        self._calls.call(COUNT, [self._keys.group(group)], ["", ttl_ms])
