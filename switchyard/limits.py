"""The backend of ``dramatiq.rate_limits`` on the broker's server."""

from __future__ import annotations

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.limit_counts import LimitCounts


def rate_limiter_backend() -> LimitCounts:
    """Return a backend for Dramatiq's rate limiters and barriers; nothing is read or connected before they are used.

    ::

        SMTP = ConcurrentRateLimiter(rate_limiter_backend(), "smtp", limit=4)
    """
    return LimitCounts(_place)


def _place() -> tuple[RedisCalls, Keys]:
    records = facilities().records
    return records.calls, records.keys
