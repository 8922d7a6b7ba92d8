"""Wall clock of the yard: this process's clock, or the server's where the two differ by more than a second.

The server's clock decides leases and due times. Times that several hosts compare and that the server does not write
(ages, ends of claims, ticks of schedules) come from here, see :mod:`switchyard.broker.redis.server_clock`.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Clocks that a time server keeps differ by less, and a measurement over a network is no better.
TOLERATED_MS = 1_000
NS_IN_MS = 1_000_000
# Last millisecond of the year 9999.
LARGEST: Final = 253_402_300_799_999
# A message of a paused actor is scheduled for the time at which it was put off plus an offset that no sender's delay
# has, see lua/include/actor_pauses.lua.
PUT_OFF_MS: Final = 200_000_000_000_000
LAST_PUT_OFF_MS: Final = PUT_OFF_MS + 10_000_000_000_000
# Messages that an open circuit has put off are scheduled later still.
CIRCUITS_MS: Final = PUT_OFF_MS + 3_000_000_000_000
CIRCUIT_SPAN_MS: Final = 10_000_000_000
# And later those that wait for a limit, see lua/include/limits.lua: of what runs at once, or of a sequence.
WAITING_MS: Final = PUT_OFF_MS + 5_000_000_000_000
IN_ORDER_MS: Final = PUT_OFF_MS + 8_000_000_000_000
# Those that stand in the line of their tenant, see lua/include/fair.lua.
FAIR_MS: Final = PUT_OFF_MS + 9_000_000_000_000
_REASONS: Final = (
    (FAIR_MS, "fair_share"),
    (IN_ORDER_MS, "order"),
    (WAITING_MS, "concurrency"),
    (CIRCUITS_MS, "circuit_open"),
)


def put_off_reason(due_at: int | None) -> str:
    """Return why a message with a due time is put off, as in the reasons of ``scheduled``; "" when it is not."""
    if due_at is None or not is_put_off(due_at):
        return ""
    return next((reason for first, reason in _REASONS if due_at >= first), "actor_paused")


def is_put_off(due_at: int | None) -> bool:
    """Return whether a due time is that of a message that is put off, which is no time."""
    return due_at is not None and PUT_OFF_MS <= due_at <= LAST_PUT_OFF_MS


class YardClock:
    """Difference between this process's clock and the server's, as last measured.

    Attributes:
        ahead_ms: Milliseconds that this process's clock was ahead of the server's; ``None`` before a measurement.
        wrong: Whether that is more than is tolerated, so that times come from the server's clock.
    """

    def __init__(self) -> None:
        self.ahead_ms: int | None = None
        self.wrong = False
        self._offset_ns = 0

    def measured(self, server_ns: int) -> None:
        """Note that the server's clock shows a time now, in nanoseconds since the epoch."""
        own_ns = time.time_ns()
        self.ahead_ms = (own_ns - server_ns) // NS_IN_MS
        # Against monotonic time: a clock that is set meanwhile, as by a time server, moves nothing.
        self._offset_ns = server_ns - time.monotonic_ns()
        self.wrong = abs(self.ahead_ms) > TOLERATED_MS

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._offset_ns if self.wrong else time.time_ns()

    def corrected(self, own_ms: int) -> int:
        """Return the server's time at which this process's clock showed a time, both in milliseconds."""
        return own_ms - self.ahead_ms if self.wrong and self.ahead_ms is not None else own_ms

    def forget(self) -> None:
        """Reckon with this process's clock until the next measurement."""
        self.ahead_ms, self.wrong = None, False


CLOCK = YardClock()


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return (CLOCK.now_ns() if CLOCK.wrong else time.time_ns()) // NS_IN_MS


def utc_now() -> datetime:
    if not CLOCK.wrong:
        return datetime.now(UTC)
    return EPOCH + timedelta(microseconds=CLOCK.now_ns() // 1_000)


def datetime_of(at_ms: int) -> datetime:
    """Return the UTC time ``at_ms`` milliseconds after the epoch, without the rounding of a float, to the year 9999."""
    return EPOCH + timedelta(milliseconds=min(max(at_ms, 0), LARGEST))
