"""Figures of a queue family, in two round trips whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from switchyard.broker.clock import CIRCUIT_SPAN_MS, CIRCUITS_MS, FAIR_MS, LAST_PUT_OFF_MS, now_ms
from switchyard.broker.keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations, lane_of, leases_in, owners_of
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import number, read, utf8
from switchyard.broker.shapes import ActorPause, LaneStats, OpenCircuit, QueuePause, QueueStats

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
        ("HGETALL", keys.yields),
        ("HGETALL", keys.sends),
        ("HGETALL", keys.actor_pauses),
        ("ZCOUNT", keys.due("live"), FAIR_MS, LAST_PUT_OFF_MS),
        ("ZRANGEBYSCORE", keys.due("live"), FAIR_MS, LAST_PUT_OFF_MS, "LIMIT", 0, 1),
        *(("ZCARD", keys.parked(lane)) for lane in ALL_LANES),
    ]
    for lane in ALL_LANES:
        reads.append(("ZCARD", keys.due(lane)))
        for waiting in keys.waiting(lane):
            reads += [("LLEN", waiting), ("LINDEX", waiting, 0)]
    owners, dead, quarantined, paused, issued, yields, sends, pauses, in_line, first, *of_lanes = calls.look(reads)
    parked, of_lanes = sum(of_lanes[: len(ALL_LANES)]), of_lanes[len(ALL_LANES) :]
    width = len(of_lanes) // len(ALL_LANES)
    by_lane = {lane: of_lanes[at * width : (at + 1) * width] for at, lane in enumerate(ALL_LANES)}
    holds = [(lane_of(owner), keys.hold(owner)) for owner in owners_of(owners, keys.leases)]
    reads = []
    for _, hold in holds:
        reads += [("HLEN", hold), ("HEXISTS", hold, "#")]
    # A message in a line of a fair lane waits, although its schedule holds it.
    by_lane["live"][0] -= in_line
    by_lane["live"] += [in_line, *first]
    reads += [("HMGET", keys.bodies, *filter(None, by_lane[lane][2::2]), "") for lane in ALL_LANES]
    found = [read(ACTOR_PAUSE, text, keys.actor_pauses) for text in pauses[1::2]]
    circuits = [one for one in found if one is not None and one.is_open]
    for one in circuits:
        first = CIRCUITS_MS + one.slot * CIRCUIT_SPAN_MS
        reads += [("ZCOUNT", keys.due(lane), first, first + CIRCUIT_SPAN_MS - 1) for lane in ALL_LANES]
    answers = calls.look(reads)
    put_off = answers[len(answers) - len(ALL_LANES) * len(circuits) :]
    *held, live_bodies, retry_bodies, alone_bodies = answers[: len(answers) - len(put_off)]
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
    pause = pause_of(paused, keys.paused)
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
        issued=number(issued, keys.token),
        yields=_by_actor(yields, keys.yields),
        sends=_by_actor(sends, keys.sends),
        circuits=tuple(
            OpenCircuit(one, sum(put_off[len(ALL_LANES) * at : len(ALL_LANES) * (at + 1)]))
            for at, one in enumerate(circuits)
        ),
    )


def _by_actor(fields: list[bytes], key: str) -> dict[str, int]:
    return {utf8(actor): number(count, key) for actor, count in zip(fields[::2], fields[1::2], strict=True)}


def _oldest_held_age_ms(calls: RedisCalls, keys: QueueKeys, holds: list[tuple[Lane, str]]) -> int | None:
    """Return the age of the oldest held message. A worker runs its messages in the order of their tokens."""
    counted = [hold for lane, hold in holds if lane in COUNTED[0]]
    held = calls.look([("HGETALL", hold) for hold in counted])
    pairs = [leases_in(answer, hold) for answer, hold in zip(held, counted, strict=True)]
    oldest = [of_owner[0][1] for of_owner in pairs if of_owner]
    return _oldest_age_ms(calls.look([("HMGET", keys.bodies, *oldest)])[0]) if oldest else None


def pauses_in(families: Sequence[QueueOperations]) -> list[ActorPause]:
    """Return the pauses in force in any of the families, by actor, and open circuits; a round trip to each server."""
    found: dict[str, ActorPause] = {}
    reads = [("HVALS", family.keys.actor_pauses) for family in families]
    answers = families[0].calls.look(reads) if families else []
    for family, texts in zip(families, answers, strict=True):
        for text in texts:
            one = read(ACTOR_PAUSE, text, family.keys.actor_pauses)
            if one is not None and (one.is_open or (one.calls is None and not 0 < one.until <= now_ms())):
                found.setdefault(one.field, one)
    return [found[field] for field in sorted(found)]


PAUSE: Final = msgspec.json.Decoder(QueuePause | int)


def pause_of(text: bytes | None, key: str) -> QueuePause | None:
    """Return a pause; one that cannot be read has neither times nor names, and pauses nevertheless."""
    found = None if text is None else read(PAUSE, text, key)
    if isinstance(found, QueuePause):
        return msgspec.structs.replace(found, until=found.until or None)
    return None if text is None else QueuePause()


def _oldest_age_ms(bodies: list[bytes | None]) -> int | None:
    since = [moment for body in bodies if body is not None and (moment := _since(body)) is not None]
    return max(now_ms() - min(since), 0) if since else None


def _since(body: bytes) -> int | None:
    try:
        message: Any = codec.decode(body, message_id=codec.ANY_ID, lane="")
    except codec.UnreadableMessage:  # a consumer moves it to the quarantine
        return None
    return int(message.options.get("due_at") or message.options.get("enqueued_at") or message.message_timestamp)
