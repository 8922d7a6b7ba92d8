"""Figures of a queue family, in two round trips whatever its size."""

from __future__ import annotations

import json
from typing import Any, Final

from switchyard.broker.clock import now_ms
from switchyard.broker.keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue import codec
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.shapes import LaneStats, QueuePause, QueueStats

COUNTED: Final[tuple[tuple[Lane, ...], ...]] = (("live", "alone"), ("retry",))


def family_stats(calls: RedisCalls, keys: QueueKeys, *, ages_held: bool = False) -> QueueStats:
    """Return depth, age and state of both lanes, and what is dead or unreadable. Messages that run alone count as live.

    With ``ages_held`` it finds the age of the oldest held message as well, in two more round trips.
    """
    # Not in a MULTI: a full Redis 7 refuses every one, even of reads.
    reads: list[tuple[Word, ...]] = [
        ("ZRANGE", keys.leases, 0, -1),
        ("LLEN", keys.dead),
        ("LLEN", keys.quarantine),
        ("GET", keys.paused),
        ("GET", keys.token),
        *(("ZCARD", keys.parked(lane)) for lane in ALL_LANES),
    ]
    for lane in ALL_LANES:
        reads.append(("ZCARD", keys.due(lane)))
        for waiting in keys.waiting(lane):
            reads += [("LLEN", waiting), ("LINDEX", waiting, 0)]
    owners, dead, quarantined, paused, issued, *of_lanes = calls.pipeline(reads)
    parked, of_lanes = sum(of_lanes[: len(ALL_LANES)]), of_lanes[len(ALL_LANES) :]
    width = len(of_lanes) // len(ALL_LANES)
    by_lane = {lane: of_lanes[at * width : (at + 1) * width] for at, lane in enumerate(ALL_LANES)}
    holds = [(owner.rpartition(b"/")[2].decode(), keys.hold(owner.decode())) for owner in owners]
    reads = []
    for _, hold in holds:
        reads += [("HLEN", hold), ("HEXISTS", hold, "#")]
    reads += [("HMGET", keys.bodies, *filter(None, by_lane[lane][2::2]), "") for lane in ALL_LANES]
    *held, live_bodies, retry_bodies, alone_bodies = calls.pipeline(reads)
    running: dict[str, int] = dict.fromkeys(ALL_LANES, 0)
    for (lane, _), count, numbered in zip(holds, held[::2], held[1::2], strict=True):
        running[lane] += count - bool(numbered)
    live, retry = (
        LaneStats(
            name=keys.lane_name(lanes[0]),
            waiting=sum(count for lane in lanes for count in by_lane[lane][1::2]),
            scheduled=sum(by_lane[lane][0] for lane in lanes),
            running=sum(running[lane] for lane in lanes),
            oldest_age_ms=_oldest_age_ms(bodies),
        )
        for lanes, bodies in zip(COUNTED, ([*live_bodies, *alone_bodies], retry_bodies), strict=True)
    )
    pause = pause_of(paused)
    return QueueStats(
        keys.queue,
        live,
        retry,
        dead=dead,
        quarantined=quarantined,
        paused=pause is not None,
        parked=parked,
        pause=pause,
        oldest_held_age_ms=_oldest_held_age_ms(calls, keys, holds) if ages_held else None,
        issued=int(issued or 0),
    )


def _oldest_held_age_ms(calls: RedisCalls, keys: QueueKeys, holds: list[tuple[str, str]]) -> int | None:
    """Return the age of the oldest held message. A worker runs its messages in the order of their tokens."""
    held = calls.pipeline([("HGETALL", hold) for lane, hold in holds if lane in COUNTED[0]])
    pairs = [[(int(token), id_) for id_, token in zip(*[iter(one)] * 2, strict=True) if id_ != b"#"] for one in held]
    oldest = [min(of_owner)[1] for of_owner in pairs if of_owner]
    return _oldest_age_ms(calls.command("HMGET", keys.bodies, *oldest)) if oldest else None


def pause_of(text: bytes | None) -> QueuePause | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return QueuePause()
    if not isinstance(found, dict):
        return QueuePause()
    since, until = (found.get(name) if isinstance(found.get(name), int) else None for name in ("since", "until"))
    return QueuePause(since, until or None, str(found.get("by", "")), str(found.get("reason", "")))


def _oldest_age_ms(bodies: list[bytes | None]) -> int | None:
    since = [moment for body in bodies if body is not None and (moment := _since(body)) is not None]
    return max(now_ms() - min(since), 0) if since else None


def _since(body: bytes) -> int | None:
    try:
        message: Any = codec.decode(body, message_id=codec.ANY_ID, lane="")
    except codec.UnreadableMessage:  # a consumer moves it to the quarantine
        return None
    return int(message.options.get("due_at") or message.options.get("enqueued_at") or message.message_timestamp)
