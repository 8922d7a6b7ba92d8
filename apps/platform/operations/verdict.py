"""One sentence about the yard, by simple rules; only what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from apps.platform.dead_letters.queries import Group
from apps.platform.operations.formatting import duration, times
from apps.platform.operations.queries import YardState
from apps.platform.operations.tracks import Level, Track

# One look cannot tell a wait of less than a second from a message that is just being picked up.
SEEN_MS = 1_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the page says first.

    Args:
        facts: Numbers with their meaning.
        then: What to do, or "".
        action: Words of the one button; ``link``: the name of its address, and ``query`` behind it.
        also: Further findings, as sentences.
    """

    level: Level
    label: str
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    then: str = ""
    action: str = ""
    link: str = ""
    query: str = ""
    also: tuple[str, ...] = field(default=())


def judge(rows: Sequence[Track], state: YardState | None, recent: Sequence[Group] | None, open_letters: int) -> Verdict:
    """Return the verdict.

    Args:
        state: ``None``: the broker is away.
        recent: Groups of letters that died in the last ten minutes; ``None``: the database is away.
        open_letters: Dead letters that nobody has triaged.
    """
    if state is None:
        return _broker_away()
    found = [*_pools_down(rows), *_late(rows), *_failing(recent or ()), *_pools_missing(rows), *_no_scheduler(state)]
    facts = _facts(rows, state, open_letters)
    if not found:
        return Verdict("ok", "Healthy", "Every queue is on time.", facts)
    first, rest = found[0], found[1:]
    also = tuple(verdict.sentence for verdict in rest)
    return Verdict(
        first.level, first.label, first.sentence, facts, first.then, first.action, first.link, first.query, also
    )


def _broker_away() -> Verdict:
    return Verdict(
        "bad",
        "Broker away",
        "Nothing starts, because the broker does not answer.",
        then="Messages that were accepted are safe in the broker's files. New jobs are refused with 503 until it is "
        "back. Check that the server runs and that SWITCHYARD_BROKER_URL names it; `manage.py doctor` tells more.",
    )


def _pools_down(rows: Sequence[Track]) -> list[Verdict]:
    return [
        Verdict(
            "bad",
            "No pool",
            f"{row.name} starts nothing, because no pool serves it; {_jobs(row)}.",
            then=f"Start the pool of {row.name} with `manage.py runpool`, or look into its log. Nothing is lost.",
        )
        for row in rows
        if row.state.word == "No pool" and row.state.level == "bad"
    ]


def _late(rows: Sequence[Track]) -> list[Verdict]:
    late = [row for row in rows if row.state.word == "Late" and (row.oldest_age_ms or 0) >= SEEN_MS]
    found = []
    for row in sorted(late, key=lambda row: row.ratio or 0, reverse=True):
        full = row.busy >= row.slots
        cause = f"all {row.slots} slots are busy" if full else "its free slots take nothing up"
        then = (
            "It is on time again when the jobs that run now end faster than new ones come. If it stays, give the "
            "pool more slots in project/topology.py, or move its slow actor to another queue."
            if full
            else "Most likely its workers have just started or cannot reach the broker: look into the pool's log."
        )
        sentence = (
            f"{row.name} is {times(row.ratio or 0)} behind its promise, because {cause}; "
            f"{_jobs(row)}, the oldest for {duration(row.oldest_age_ms or 0)}."
        )
        found.append(Verdict(row.state.level, "Late", sentence, then=then))
    return found


def _failing(recent: Sequence[Group]) -> list[Verdict]:
    count = sum(group.letters for group in recent)
    if not count:
        return []
    worst = recent[0]
    several = f", {worst.letters:,} of them" if len(recent) > 1 else ","
    sentence = (
        f"{count:,} job{'' if count == 1 else 's'} gave up in the last 10 minutes{several} "
        f"because {worst.actor} fails with {worst.exception}."
    )
    return [
        Verdict(
            "warn",
            "Failing",
            sentence,
            then="Nothing consumes a dead list: requeue the letters when the cause is mended, or discard them.",
            action=f"Triage {worst.letters:,} dead letter{'' if worst.letters == 1 else 's'}",
            link="admin:dead_letters_deadletter_changelist",
            query=f"?fingerprint={worst.fingerprint}",
        )
    ]


def _pools_missing(rows: Sequence[Track]) -> list[Verdict]:
    missing = [row.name for row in rows if row.state.word == "No pool" and row.state.level == "warn"]
    if not missing:
        return []
    return [
        Verdict(
            "warn",
            "No pool",
            f"No pool serves {', '.join(missing)}; nothing waits there yet.",
            then="Start the pools with `manage.py runpools`, or each with `manage.py runpool NAME`.",
        )
    ]


def _no_scheduler(state: YardState) -> list[Verdict]:
    if state.scheduler_up:
        return []
    return [
        Verdict(
            "warn",
            "No scheduler",
            "No schedule starts and no alert is sent, because no scheduler leads.",
            then="Start `manage.py runscheduler`. Missed ticks are caught up as each schedule says; alerts wait.",
        )
    ]


def _facts(rows: Sequence[Track], state: YardState, open_letters: int) -> tuple[tuple[str, str], ...]:
    slots = sum(pool.slots for pool in state.pools.values())
    busy = sum(pool.busy for pool in state.pools.values())
    waiting = sum(stats.live.waiting for stats in state.queues)
    retrying = sum(stats.retry.waiting + stats.retry.scheduled + stats.retry.running for stats in state.queues)
    closest = max((row for row in rows if row.ratio is not None), key=lambda row: row.ratio or 0, default=None)
    first = ("None", "waits past its promise")
    if closest is not None and closest.ratio is not None:
        # Rounded down: 100 % says that a promise is broken.
        share = f"{int(closest.ratio * 100)} %" if closest.ratio <= 1 else times(closest.ratio)
        first = (share, f"closest to its promise: {closest.name}, {duration(closest.oldest_age_ms or 0)}")
    return (
        first,
        (f"{slots - busy:,} of {slots:,}", "slots idle"),
        (f"{waiting:,}", f"wait, {retrying:,} more retry"),
        (f"{open_letters:,}", f"dead letter{'' if open_letters == 1 else 's'} to triage"),
    )


def _jobs(row: Track) -> str:
    count = (row.waiting or 0) + row.held
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"
