"""Rows of the overview: every queue, every retry lane with its own pool, and each pool for the other retry lanes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from switchyard.broker.shapes import LaneStats, QueueStats
from switchyard.broker.topology import Queue, Yard
from switchyard.console.formatting import promise, retries_text, times
from switchyard.operations.findings.finding import Level
from switchyard.operations.queries import PoolState, YardState

Signal = Literal["open", "paused", "cross", "unknown"]
Kind = Literal["queue", "lane", "pool"]
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
    kind: Kind
    promise: str
    signal: Signal
    state: RowStatus
    queue: str = ""
    waiting: int | None = None
    held: int = 0
    oldest_age_ms: int | None = None
    ratio: float | None = None
    slots: int = 0
    busy: int = 0
    retrying: int | None = None
    dead: int | None = None
    own_track: bool = False
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
    return [row for queue in yard.queues for row in _queue_and_lane(yard, queue, state)] + [*_shared(yard, state)]


def _queue_and_lane(yard: Yard, queue: Queue, state: YardState | None) -> Iterator[Row]:
    own = [pool for pool in yard.pools if queue.retry_lane in pool.queues]
    retries = retries_text(queue.retry.retries, queue.retry.span_ms(), speed=yard.retry_speed)
    own_track, shown = bool(own), "" if own else retries
    promised = promise(queue.objective_ms, queue.done_objective_ms)
    stats = next((stats for stats in (state.queues if state else ()) if stats.queue == queue.name), None)
    if state is None or stats is None:
        word = UNKNOWN if state is None else AWAY
        yield Row(queue.name, "queue", promised, "unknown", word, own_track=own_track, retries=shown)
        if own:
            yield Row(queue.retry_lane, "lane", retries, "unknown", word)
        return
    pools = [state.pools[pool.name] for pool in yard.pools_of(queue.name)]
    row = _worked(queue.name, "queue", promised, [stats.live], pools, state, paused=stats.paused)
    unfinished, rates = stats.oldest_unfinished_age_ms, state.rates.get(queue.name)
    row = replace(
        row,
        queue=queue.name,
        own_track=own_track,
        retries=shown,
        ratio=_over(row.oldest_age_ms, queue.objective_ms),
        done_ratio=_over(unfinished, queue.done_objective_ms),
        unfinished_age_ms=unfinished,
        retrying=None if own else stats.retry.total,
        dead=None if own else stats.dead,
        done_a_minute=None if rates is None else rates.ends * 60,
    )
    away = state.server.away
    stands = RowStatus(away.blocked_word, "bad", away.blocked_why) if queue.name in away.blocked else None
    yield replace(row, state=stands or _word(row, stats, pools))
    if own:
        pools = [state.pools[pool.name] for pool in own]
        lane = _worked(stats.retry.name, "lane", retries, [stats.retry], pools, state)
        yield replace(lane, queue=stats.queue, dead=stats.dead, state=stands or lane.state)


def _shared(yard: Yard, state: YardState | None) -> Iterator[Row]:
    for pool in (pool for pool in yard.pools if pool.shared_retries):
        served = yard.served_by(pool)
        works = f"works {len(served)} sidings"
        if state is None:
            yield Row(pool.name, "pool", works, "unknown", UNKNOWN)
            continue
        lanes = [lane for stats in state.queues for lane in (stats.live, stats.retry) if lane.name in served]
        yield _worked(pool.name, "pool", works, lanes, [state.pools[pool.name]], state, detail="pool, no queue")


def _worked(
    name: str, kind: Kind, promised: str, lanes: Sequence[LaneStats], pools: Sequence[PoolState], state: YardState,
    *, paused: bool = False, detail: str = "",
) -> Row:  # fmt: skip
    """Return the row of lanes that some pools work, in the state of one without a promise."""
    known = state.server.pools_known
    up = not known or any(pool.up for pool in pools)
    total = sum(lane.total for lane in lanes)
    flow = RowStatus("Flowing", "ok", detail) if total else RowStatus("Quiet", "calm", detail)
    return Row(
        name,
        kind,
        promised,
        signal="cross" if not up else "paused" if paused or _quieted(pools) else "open",
        state=_stopped(pools, known=known, waiting=total) or flow,
        waiting=sum(lane.waiting for lane in lanes),
        held=sum(lane.scheduled for lane in lanes),
        oldest_age_ms=max((lane.oldest_age_ms for lane in lanes if lane.oldest_age_ms is not None), default=None),
        slots=sum(pool.slots for pool in pools),
        busy=sum(pool.busy for pool in pools),
        slots_known=known,
    )


def _word(row: Row, stats: QueueStats, pools: Sequence[PoolState]) -> RowStatus:
    live = stats.live
    if stopped := _stopped(pools, known=row.slots_known, waiting=live.waiting, held=live.scheduled):
        return stopped
    if stats.paused:
        return RowStatus("Paused", "warn", f"{live.waiting:,} wait")
    for ratio, promised in ((row.ratio, "its promise"), (row.done_ratio, "its promise to end")):
        if ratio is not None and ratio > 1:
            return RowStatus("Late", "bad" if ratio >= BAD_RATIO else "warn", f"{times(ratio)} {promised}")
    return RowStatus("On time", "ok") if live.total else RowStatus("Quiet", "calm")


def _stopped(pools: Sequence[PoolState], *, known: bool, waiting: int, held: int = 0) -> RowStatus | None:
    """Return the state of a row whose pools take no work; ``None`` where they do, or where that is not known."""
    if known and not any(pool.up for pool in pools):
        detail = "starting" if any(pool.state == "starting" for pool in pools) else "no supervisor reports"
        return RowStatus("No pool", "bad" if waiting + held and detail != "starting" else "warn", detail)
    if _quieted(pools):
        return RowStatus(QUIETED, "bad" if waiting else "warn", "its pool takes no new work")
    return None


def _quieted(pools: Sequence[PoolState]) -> bool:
    """Return whether pools are up, and operators quieted every supervisor of them."""
    return any(pool.up for pool in pools) and not any(pool.takes_work for pool in pools)


def _over(age_ms: int | None, promised_ms: int | None) -> float | None:
    return age_ms / promised_ms if age_ms is not None and promised_ms else None


PROMISE_X, SIGNAL_X = 136, 284
LINEAR, LOGARITHMIC = SIGNAL_X - PROMISE_X, 60
WAGON, GAP, LONG_WAGON = 7, 2, 112
SLOT, SLOT_GAP, SINGLE_SLOTS = 11, 4, 8


# A rectangle: its place, its width, and its class in the style sheet.
Mark = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """The marks of one row. ``held`` slots are those of the actor ``holder``, behind which a late queue waits."""

    train: tuple[Mark, ...]
    slots: tuple[Mark, ...]
    siding: tuple[Mark, ...]
    holder: str = ""
    held: int = 0


def draw(row: Row, holder: str = "", held: int = 0) -> Drawing:
    held = min(held, row.busy)
    count = min(8, math.ceil(math.log10((row.retrying or 0) + 1) * 2))
    siding = tuple((30 + index * (WAGON + GAP + 1), WAGON, "hollow") for index in range(count))
    return Drawing(_train(row), _slots(row, held), siding, holder if held else "", held)


def _train(row: Row) -> tuple[Mark, ...]:
    if not row.waiting and not (row.kind != "queue" and row.held):
        return ()
    length = min(LINEAR, 18 * math.log10(1 + (row.waiting or 0) + row.held) + WAGON)
    if row.ratio is not None:
        past = min(math.log10(max(row.ratio, 1.0)), 2.0)
        length = min(row.ratio, 1.0) * LINEAR + past * LOGARITHMIC
    count = max(1, int(length // (WAGON + GAP)))
    places = (SIGNAL_X - 4 - (index + 1) * (WAGON + GAP) + GAP for index in range(count))
    return tuple((x, WAGON, "past" if x < PROMISE_X and row.ratio is not None else "wagon") for x in places)


def _slots(row: Row, held: int) -> tuple[Mark, ...]:
    if not row.slots_known:
        return ()
    if row.slots == 0:
        return ((0, SLOT, "gone"),)
    if row.slots <= SINGLE_SLOTS:
        step = SLOT + SLOT_GAP
        kinds = ["held"] * held + ["busy"] * (row.busy - held) + ["idle"] * (row.slots - row.busy)
        return tuple((index * step, SLOT, kind) for index, kind in enumerate(kinds[: row.slots]))
    filled = (round(LONG_WAGON * min(row.busy / row.slots, 1.0)) or 2) if row.busy else 0
    by_holder = max(2, round(LONG_WAGON * held / row.slots)) if held else 0
    parts = (LONG_WAGON, "idle"), (filled, "busy"), (by_holder, "held")
    return tuple((0, width, kind) for width, kind in parts if width)
