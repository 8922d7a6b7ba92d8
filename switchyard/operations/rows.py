"""Rows of the overview: every queue, every retry lane with its own pool, and each pool for the other retry lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from switchyard.broker.shapes import LaneStats, QueueStats
from switchyard.broker.topology import Queue, Yard
from switchyard.console.formatting import promise, retries_text, times
from switchyard.operations.queries import PoolState, YardState

Level = Literal["ok", "warn", "bad", "calm"]
Signal = Literal["open", "paused", "cross", "unknown"]
BAD_RATIO = 10


@dataclass(frozen=True, slots=True)
class RowStatus:
    """State of a row: one word, its level, and the fact behind it."""

    word: str
    level: Level
    detail: str = ""


# Word of a queue whose pools an operator has quieted; "Quiet" is one without work.
QUIETED = "Quieted"
UNKNOWN = RowStatus("Unknown", "calm", "broker away")
AWAY = RowStatus("Away", "bad", "its node does not answer")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the overview.

    Args:
        queue: Queue whose dead list the row shows, or "".
        kind: ``queue``, ``lane`` (a retry lane with a pool of its own) or ``pool`` (serves several retry lanes).
        waiting, held: Messages due and not yet due; ``waiting`` is ``None`` while the broker is unavailable.
        ratio: Age of the oldest message over the objective; ``None`` without an objective or without waiting messages.
        done_ratio, unfinished_age_ms: The same of the oldest one that waits or is held, for the end.
        retrying, dead: ``None`` when the row has no siding or buffer stop of its own.
        own_track: The row below shows its retries.
        done_a_minute: Attempts that end, of the queue and its retries; ``None`` where they are not known yet.
        retries: Number and span of its retries, or "" where another row shows them.
        slots_known: The reports of its pools can be read.
    """

    name: str
    queue: str
    kind: Literal["queue", "lane", "pool"]
    promise: str
    waiting: int | None
    held: int
    oldest_age_ms: int | None
    ratio: float | None
    slots: int
    busy: int
    retrying: int | None
    dead: int | None
    own_track: bool
    signal: Signal
    state: RowStatus
    retries: str = ""
    done_ratio: float | None = None
    unfinished_age_ms: int | None = None
    done_a_minute: float | None = None
    slots_known: bool = True

    @property
    def folds(self) -> bool:
        """Whether a narrow screen may show the row as one line."""
        return self.state.level in ("ok", "calm") and not self.dead


def yard_rows(yard: Yard, state: YardState | None) -> list[Row]:
    """Return the rows in the order of the topology; ``state`` is ``None`` while the broker is unavailable."""
    return [row for queue in yard.queues for row in _queue_and_lane(yard, queue, state)] + _shared(yard, state)


def _queue_and_lane(yard: Yard, queue: Queue, state: YardState | None) -> Iterator[Row]:
    own = [pool for pool in yard.pools if queue.retry_lane in pool.queues]
    retries = retries_text(queue.retry.retries, queue.retry.span_ms(), speed=yard.retry_speed)
    shown = "" if own else retries
    stats = next((stats for stats in state.queues if stats.queue == queue.name), None) if state is not None else None
    if state is None or stats is None:
        word = UNKNOWN if state is None else AWAY
        yield _unknown(queue.name, "queue", _promise(queue), own_track=bool(own), retries=shown, word=word)
        if own:
            yield _unknown(queue.retry_lane, "lane", retries, own_track=False, word=word)
        return
    rates = state.rates.get(queue.name)
    known = state.server.pools_known
    pools = [state.pools[pool.name] for pool in yard.pools_of(queue.name)]
    row = _queue(queue, stats, pools, own_track=bool(own), retries=shown, known=known)
    away = state.server.away
    stands = RowStatus(away.blocked_word, "bad", away.blocked_why) if queue.name in away.blocked else None
    row = replace(row, state=stands or row.state)
    yield row if rates is None else replace(row, done_a_minute=rates.ends * 60)
    if own:
        lane = _lane(stats, [state.pools[pool.name] for pool in own], retries, known=known)
        yield replace(lane, state=stands or lane.state)


def _queue(
    queue: Queue, stats: QueueStats, pools: list[PoolState], *, own_track: bool, retries: str, known: bool
) -> Row:
    live, age = stats.live, stats.live.oldest_age_ms
    ratio = age / queue.objective_ms if age is not None and queue.objective_ms else None
    unfinished = stats.oldest_unfinished_age_ms
    done_ratio = unfinished / queue.done_objective_ms if unfinished is not None and queue.done_objective_ms else None
    up = not known or any(pool.up for pool in pools)
    return Row(
        name=queue.name,
        queue=queue.name,
        kind="queue",
        promise=_promise(queue),
        waiting=live.waiting,
        held=live.scheduled,
        oldest_age_ms=age,
        ratio=ratio,
        done_ratio=done_ratio,
        unfinished_age_ms=unfinished,
        slots=sum(pool.slots for pool in pools),
        busy=sum(pool.busy for pool in pools),
        retrying=None if own_track else _count(stats.retry),
        dead=None if own_track else stats.dead,
        own_track=own_track,
        signal=_signal(up=up, paused=stats.paused or _quieted(pools)),
        state=_word(stats, ratio, done_ratio, pools, up=up),
        retries=retries,
        slots_known=known,
    )


def _lane(stats: QueueStats, pools: list[PoolState], retries: str, *, known: bool) -> Row:
    up = not known or any(pool.up for pool in pools)
    return Row(
        name=stats.retry.name,
        queue=stats.queue,
        kind="lane",
        promise=retries,
        waiting=stats.retry.waiting,
        held=stats.retry.scheduled,
        oldest_age_ms=stats.retry.oldest_age_ms,
        ratio=None,
        slots=sum(pool.slots for pool in pools),
        busy=sum(pool.busy for pool in pools),
        retrying=None,
        dead=stats.dead,
        own_track=False,
        signal=_signal(up=up, paused=_quieted(pools)),
        state=_flow(pools, "", waiting=_count(stats.retry), up=up),
        slots_known=known,
    )


def _shared(yard: Yard, state: YardState | None) -> list[Row]:
    rows = []
    for pool in (pool for pool in yard.pools if pool.shared_retries):
        lanes = yard.served_by(pool)
        works = f"works {len(lanes)} sidings"
        if state is None:
            rows.append(_unknown(pool.name, "pool", works, own_track=False))
            continue
        now, known = state.pools[pool.name], state.server.pools_known
        stats = [lane for found in state.queues for lane in (found.live, found.retry) if lane.name in lanes]
        ages = [lane.oldest_age_ms for lane in stats if lane.oldest_age_ms is not None]
        rows.append(
            Row(
                name=pool.name,
                queue="",
                kind="pool",
                promise=works,
                waiting=sum(lane.waiting for lane in stats),
                held=sum(lane.scheduled for lane in stats),
                oldest_age_ms=max(ages, default=None),
                ratio=None,
                slots=now.slots,
                busy=now.busy,
                retrying=None,
                dead=None,
                own_track=False,
                signal=_signal(up=now.up or not known, paused=_quieted([now])),
                state=_flow(
                    [now], "pool, no queue", waiting=sum(_count(lane) for lane in stats), up=now.up or not known
                ),
                slots_known=known,
            )
        )
    return rows


def _promise(queue: Queue) -> str:
    return promise(queue.objective_ms, queue.done_objective_ms)


def _word(
    stats: QueueStats, ratio: float | None, done_ratio: float | None, pools: list[PoolState], *, up: bool
) -> RowStatus:
    live = stats.live
    if not up:
        return _no_pool(pools, waiting=live.waiting + live.scheduled)
    if _quieted(pools):
        return RowStatus(QUIETED, "bad" if live.waiting else "warn", "its pool takes no new work")
    if stats.paused:
        return RowStatus("Paused", "warn", f"{live.waiting:,} wait")
    if ratio is not None and ratio > 1:
        return RowStatus("Late", "bad" if ratio >= BAD_RATIO else "warn", f"{times(ratio)} its promise")
    if done_ratio is not None and done_ratio > 1:
        return RowStatus(
            "Late", "bad" if done_ratio >= BAD_RATIO else "warn", f"{times(done_ratio)} its promise to end"
        )
    if not live.waiting + live.running + live.scheduled:
        return RowStatus("Quiet", "calm")
    return RowStatus("On time", "ok")


def _flow(pools: list[PoolState], detail: str, *, waiting: int, up: bool) -> RowStatus:
    if not up:
        return _no_pool(pools, waiting=waiting)
    if _quieted(pools):
        return RowStatus(QUIETED, "bad" if waiting else "warn", "its pool takes no new work")
    return RowStatus("Flowing", "ok", detail) if waiting else RowStatus("Quiet", "calm", detail)


def _no_pool(pools: list[PoolState], *, waiting: int) -> RowStatus:
    detail = "starting" if any(pool.state == "starting" for pool in pools) else "no supervisor reports"
    return RowStatus("No pool", "bad" if waiting and detail != "starting" else "warn", detail)


def _quieted(pools: list[PoolState]) -> bool:
    """Return whether pools are up, and operators quieted every supervisor of them."""
    return any(pool.up for pool in pools) and not any(pool.takes_work for pool in pools)


def _signal(*, up: bool, paused: bool) -> Signal:
    if not up:
        return "cross"
    return "paused" if paused else "open"


def _count(lane: LaneStats) -> int:
    return lane.waiting + lane.scheduled + lane.running


def _unknown(
    name: str,
    kind: Literal["queue", "lane", "pool"],
    promised: str,
    *,
    own_track: bool,
    retries: str = "",
    word: RowStatus = UNKNOWN,
) -> Row:
    return Row(
        name=name,
        queue="",
        kind=kind,
        promise=promised,
        waiting=None,
        held=0,
        oldest_age_ms=None,
        ratio=None,
        slots=0,
        busy=0,
        retrying=None,
        dead=None,
        own_track=own_track,
        signal="unknown",
        state=word,
        retries=retries,
    )
