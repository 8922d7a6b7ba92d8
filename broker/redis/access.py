"""Choice of the access to the server, by the kind of client."""

from __future__ import annotations

import redis

from broker.redis.calls import BUDGET_S, RedisCalls
from broker.redis.cluster import ClusterCalls
from broker.redis.cluster_client import ClusterClient


def calls_on(client: redis.Redis, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> RedisCalls:
    """Return the access over a client's address; see :class:`broker.redis.calls.RedisCalls`."""
    if isinstance(client, ClusterClient):
        return ClusterCalls(client, budget_s=budget_s, refused_s=refused_s)
    return RedisCalls(client, budget_s=budget_s, refused_s=refused_s)
