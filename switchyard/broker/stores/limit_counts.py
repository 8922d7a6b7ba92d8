"""Counters of ``dramatiq.rate_limits``, barriers of groups, sliding windows over all workers, and named locks."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from dramatiq.rate_limits import RateLimiterBackend

from switchyard.broker.keys import Keys
from switchyard.broker.queue.limits import override_of
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.scripts import script

CHANGE: Final = script("limit_change", folder="")
LARGEST: Final = 2**53
# A call is repeated for 2 s.
ANSWER_TTL_MS: Final = 10_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.1


class LimitCounts(RateLimiterBackend):
    """Backend of Dramatiq's rate limiters and barriers, on the broker's server.

    ``place`` is called at each use, so that a limiter may be made before the broker.
    """

    def __init__(self, place: Callable[[], tuple[RedisCalls, Keys]]) -> None:
        self._place = place

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set a counter that does not exist; ``False`` when it does."""
        return self._change(key, value, ttl, only="new")

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Increment a counter; ``False`` when it would exceed its maximum."""
        return self._change(key, amount, ttl, maximum=maximum)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Decrement a counter; ``False`` when it would go below its minimum."""
        return self._change(key, -amount, ttl, minimum=minimum)

    def incr_and_sum(self, key: str, keys: Callable[[], Sequence[str]], amount: int, maximum: int, ttl: int) -> bool:
        """Increment a counter; ``False`` when it, or the sum of the counters, would exceed the maximum."""
        return self._change(key, amount, ttl, maximum=maximum, summed=keys())

    def wait(self, key: str, timeout: int | None) -> bool:
        """Wait for an event, up to ``timeout`` ms; ``False`` when it did not come.

        Polls, every 100 ms at last: a blocked connection would be one more for each waiting task.
        """
        calls, keys = self._place()
        until_s = None if timeout is None else time.monotonic() + timeout / 1000
        pause_s = FIRST_PAUSE_S
        while not calls.command("EXISTS", keys.limit(key)):
            if until_s is not None and time.monotonic() >= until_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return True

    def wait_notify(self, key: str, ttl: int) -> None:
        """Let those go on that wait for an event, and those that come within ``ttl`` ms."""
        calls, keys = self._place()
        calls.command("SET", keys.limit(key), 1, "PX", ttl)

    def _change(
        self,
        key: str,
        amount: int,
        ttl_ms: int,
        *,
        minimum: int = -LARGEST,
        maximum: int = LARGEST,
        summed: Sequence[str] = (),
        only: str = "",
    ) -> bool:
        calls, keys = self._place()
        names = [keys.limit(key), keys.limit_answer(key, secrets.token_hex(8)), *map(keys.limit, summed)]
        arguments: list[Any] = [amount, minimum, maximum, ttl_ms, ANSWER_TTL_MS, only]
        return bool(calls.call(CHANGE, names, arguments))


COUNT_GROUP: Final = script("group_count", folder="")
GROUP_ANSWERS: Final[dict[int, Literal["unknown", "open", "complete"]]] = {-1: "unknown", 0: "open", 1: "complete"}


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
    """Barriers of groups with completion callbacks, by the id of their run: each counts the ids that have succeeded.

    Dramatiq's own barrier counts calls: a job that runs again after a crash would count twice, and the callbacks be
    sent while another job still runs. Every method may be repeated.

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
        return GROUP_ANSWERS[int(self._calls.call(COUNT_GROUP, [self._keys.group(group)], [job_id, ttl_ms]))]

    def note_sent(self, group: str, *, ttl_ms: int) -> None:
        """Note that the callbacks of a group were sent; the ids of its jobs are deleted."""
        self._calls.call(COUNT_GROUP, [self._keys.group(group)], ["", ttl_ms])


OVERRIDES_S: Final = 1.0
RESERVE = script("window_reserve", folder="")

logger = logging.getLogger(__name__)


class RateWindows:
    """Reserve starts under a limit. The server's clock decides."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._keys = keys
        self._calls = calls
        self._overrides: dict[bytes, bytes] = {}
        self._fresh_until_s = 0.0

    def limit_of(self, rate: str, declared: int) -> int:
        """Return the starts of a rate: those of its override until its time. Overrides are read once a second."""
        key = self._keys.rate_overrides()
        if (now_s := time.monotonic()) >= self._fresh_until_s:
            fields = self._calls.command("HGETALL", key)
            self._overrides = dict(zip(fields[::2], fields[1::2], strict=True))
            self._fresh_until_s = now_s + OVERRIDES_S
        found = override_of(self._overrides.get(rate.encode()), key) if self._overrides else None
        return declared if found is None else found.n

    def reserve(self, name: str, member: str, *, limit: int, window_ms: int) -> int:
        """Start now or reserve the next start; return the milliseconds until it, 0 for now.

        The same member asking again keeps its slot. Starts that a clock which was ahead has written are dropped, and
        logged: they would hold up everything else for as long as it was ahead.
        """
        wait_ms, dropped = self._calls.call(RESERVE, [self._keys.window(name)], [member, limit, window_ms])
        if dropped:
            logger.warning(
                "rate limit %s: %d starts lie too far in the future and are dropped; the server's clock was ahead",
                name,
                dropped,
            )
        return int(wait_ms)


ACQUIRE, RELEASE = (script(name, folder="") for name in ("lock_take", "lock_release"))
# How long the number of a lock's last acquisition is remembered.
FENCE_MS: Final = 7 * 24 * 3_600_000


class Lock:
    """A lock that expires ``lease_ms`` after its holder last acquired it."""

    def __init__(self, calls: RedisCalls, keys: Keys, name: str, *, lease_ms: int) -> None:
        self._keys = [keys.lock(name)]
        self._lease_ms = lease_ms
        self._token = secrets.token_hex(16)
        self._calls = calls

    def acquire(self) -> bool:
        """Acquire the lock, or renew it; ``False`` when another process holds it."""
        return bool(self._calls.call(ACQUIRE, self._keys, [self._token, self._lease_ms]))

    def release(self) -> bool:
        """Release the lock; ``False`` when it had expired."""
        return bool(self._calls.call(RELEASE, self._keys, [self._token]))


class TaskLock(Lock):
    """A lock whose acquisitions have growing numbers.

    Attributes:
        number: That of this acquisition, 0 before it. A resource that refuses a number below the last one it has seen
            is safe from a holder that was suspended and has lost the lock.
        lost: Another holder has it, as a renewal found.
    """

    def __init__(self, calls: RedisCalls, keys: Keys, name: str, *, lease_ms: int) -> None:
        super().__init__(calls, keys, name, lease_ms=lease_ms)
        self._keys = [*keys.task_lock(name)]
        self.name, self.number, self.lost = name, 0, False
        self._renewed_s, self._released = 0.0, False

    def acquire(self) -> bool:
        """Acquire the lock, or renew it; ``False`` when another holds it, or has held it since."""
        began_s = time.monotonic()
        args: list[Word] = [self._token, self._lease_ms, self.number or "", FENCE_MS]
        if not (number := self._calls.call(ACQUIRE, self._keys, args)):
            return False
        self.number, self._renewed_s = int(number), began_s
        return True

    def release(self) -> bool:
        """Release the lock, also for a renewal that is on its way in another thread; ``False`` when it had expired."""
        self._released = True
        return bool(self._calls.call(RELEASE, self._keys, [self._token, self.number]))

    def keep(self) -> None:
        """Renew the lock when a third of its lease is over; once it is lost, log that and do no more."""
        if self.lost or time.monotonic() < self._renewed_s + self._lease_ms / 3_000:
            return
        if not self.acquire() and not self._released:
            self.lost = True
            logger.error("lock %s: lost while its task ran; this process could not renew it in time", self.name)
