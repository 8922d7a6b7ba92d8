"""Choice of the access to the server, by the kind of client."""

from __future__ import annotations

import redis

from switchyard.broker.redis.calls import BUDGET_S, RedisCalls
from switchyard.broker.redis.connections import Client


def calls_on(client: redis.Redis, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> RedisCalls:
    """Return the access over a client's address; see :class:`switchyard.broker.redis.calls.RedisCalls`."""
    addon = client.addon if isinstance(client, Client) else None
    kind = (addon and addon.load("calls")) or RedisCalls
    calls: RedisCalls = kind(client, budget_s=budget_s, refused_s=refused_s)
    return calls
