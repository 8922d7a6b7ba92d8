"""How a queue family stands, in two round trips whatever its size."""

from __future__ import annotations

import time
from typing import Any

import redis

from broker import codec
from broker.family_keys import LANES, FamilyKeys
from broker.interface import LaneStats, QueueStats


def family_stats(client: redis.Redis, keys: FamilyKeys) -> QueueStats:
    """Return depth, age and state of both lanes, and what is dead or unreadable."""
    with client.pipeline(transaction=False) as pipe:  # a full Redis 7 refuses every MULTI, even of reads
        pipe.zrange(keys.leases, 0, -1)
        pipe.llen(keys.dead)
        pipe.llen(keys.quarantine)
        pipe.exists(keys.paused)
        for lane in LANES:
            pipe.zcard(keys.due(lane))
            for waiting in keys.waiting(lane):
                pipe.llen(waiting)
                pipe.lindex(waiting, 0)
        owners, dead, quarantined, paused, *of_lanes = pipe.execute()
        holds = [(owner.rpartition(b"/")[2].decode(), keys.hold(owner.decode())) for owner in owners]
        for _, hold in holds:
            pipe.hlen(hold)
            pipe.hexists(hold, "#")
        width = len(of_lanes) // 2
        heads = [[head for head in of_lanes[start + 2 : start + width : 2] if head] for start in (0, width)]
        for lane_heads in heads:
            pipe.hmget(keys.bodies, [*lane_heads, ""])
        *held, live_bodies, retry_bodies = pipe.execute()
    running: dict[str, int] = dict.fromkeys(LANES, 0)
    for (lane, _), count, numbered in zip(holds, held[::2], held[1::2], strict=True):
        running[lane] += count - bool(numbered)
    live, retry = (
        LaneStats(
            name=keys.lane_name(lane),
            waiting=sum(of_lanes[start + 1 : start + width : 2]),
            scheduled=of_lanes[start],
            running=running[lane],
            oldest_age_ms=_oldest_age_ms(bodies),
        )
        for lane, start, bodies in zip(LANES, (0, width), (live_bodies, retry_bodies), strict=True)
    )
    return QueueStats(keys.queue, live, retry, dead=dead, quarantined=quarantined, paused=bool(paused))


def _oldest_age_ms(bodies: list[bytes | None]) -> int | None:
    since = [moment for body in bodies if body is not None and (moment := _since(body)) is not None]
    return max(time.time_ns() // 1_000_000 - min(since), 0) if since else None


def _since(body: bytes) -> int | None:
    try:
        message: Any = codec.decode(body, message_id="", lane="")
    except codec.UnreadableMessage:  # whatever stands there is for the quarantine, not for a page of figures
        return None
    return int(message.options.get("due_at") or message.options.get("enqueued_at") or message.message_timestamp)
