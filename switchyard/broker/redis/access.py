"""Choice of the access to the server, by the kind of client."""

from __future__ import annotations

import redis

from switchyard.broker.redis.calls import BUDGET_S, RedisCalls
from switchyard.broker.redis.cluster import ClusterCalls
from switchyard.broker.redis.cluster_client import ClusterClient


def calls_on(client: redis.Redis, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> RedisCalls:
    """Return the access over a client's address; see :class:`switchyard.broker.redis.calls.RedisCalls`."""
    if isinstance(client, ClusterClient):
        return ClusterCalls(client, budget_s=budget_s, refused_s=refused_s)
    return RedisCalls(client, budget_s=budget_s, refused_s=refused_s)
