"""Whether the broker's server takes work, and whether it may drop some: it answers reads when it does neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import redis

from broker.keys import Keys

SAFE_POLICY = "noeviction"
# First word of the server's refusal -> why it takes no work, and what to do.
REFUSALS = {
    "OOM": (
        "its memory is full",
        "Raise it with `CONFIG SET maxmemory` and in the server's configuration; work then goes on by itself. Leave "
        "maxmemory-policy alone: any other one deletes waiting jobs.",
    ),
    "READONLY": (
        "it is a replica, which only reads",
        "Point SWITCHYARD_BROKER_URL at the primary, or finish the failover.",
    ),
    "MISCONF": (
        "it cannot write to its disk",
        "Free its disk and look into its log; work then goes on by itself.",
    ),
}


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server does with new work.

    Args:
        refusal: Why it takes none, as half a sentence; "" when it takes it.
        then: What to do about that.
        eviction: The policy by which it drops work when its memory is full; "" when it drops none.
    """

    refusal: str = ""
    then: str = ""
    eviction: str = ""


TAKES_WORK = ServerState()


def ask_server(client: redis.Redis, keys: Keys) -> ServerState:
    """Ask for leave to write, writing nothing, and for the policy.

    Raises:
        redis.ConnectionError, redis.TimeoutError: it does not answer.
    """
    refusal, then = _refusal(client, keys)
    return ServerState(refusal, then, _eviction(client))


def _refusal(client: redis.Redis, keys: Keys) -> tuple[str, str]:
    try:
        # Nothing, written into a key that does not exist, makes none; a server that refuses writes refuses this too.
        client.setrange(keys.lock("takes-work"), 0, "")
    except redis.OutOfMemoryError:
        return REFUSALS["OOM"]
    except redis.ReadOnlyError:
        return REFUSALS["READONLY"]
    except redis.ResponseError as error:
        return REFUSALS.get(str(error).partition(" ")[0], ("", ""))
    return "", ""


def _eviction(client: redis.Redis) -> str:
    try:
        memory = cast("dict[str, Any]", client.info("memory"))
    except redis.ResponseError:  # this user may not ask
        return ""
    policy = str(memory.get("maxmemory_policy", SAFE_POLICY))
    return "" if policy == SAFE_POLICY else policy
