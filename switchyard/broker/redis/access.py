"""Choice of the access to the server, by the kind of client."""

from __future__ import annotations

import redis

from switchyard.addons.cluster.calls import ClusterCalls
from switchyard.addons.cluster.client import ClusterClient
from switchyard.broker.redis.calls import BUDGET_S, RedisCalls


def calls_on(client: redis.Redis, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> RedisCalls:
    """Return the access over a client's address; see :class:`switchyard.broker.redis.calls.RedisCalls`."""
    if isinstance(client, ClusterClient):
        return ClusterCalls(client, budget_s=budget_s, refused_s=refused_s)
    return RedisCalls(client, budget_s=budget_s, refused_s=refused_s)
