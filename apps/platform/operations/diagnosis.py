"""One sentence about the yard, by simple rules; only what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from apps.platform.console.formatting import duration, times
from apps.platform.dead_letters.queries import Group
from apps.platform.operations.queries import YardState
from apps.platform.operations.rows import Level, Track
from apps.platform.operations.server_state import ServerState
from broker.health.server import Finding
from broker.shapes import LaneStats

# One look cannot tell a wait of less than a second from a message that is just being picked up.
SEEN_MS = 1_000
# A few retries are daily life; this many of one queue at once have a cause.
MANY_RETRIES = 10


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
    facts = _facts(rows, state, open_letters)
    if state.server.refusal:
        return _broker_refuses(state.server, facts)
    found = [
        *_broker_unsafe(state.server.errors),
        *_pools_down(rows),
        *_late(rows),
        *_paused(rows),
        *_parked(state),
        *_failing(recent or ()),
        *_retrying(state),
        *_pools_missing(rows),
        *_no_scheduler(state),
        *_broker_unsafe(state.server.warnings),
    ]
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
        "back. Check that the server runs and that SWITCHYARD_BROKER_URL names it; the web's log holds its last words.",
    )


def _broker_refuses(server: ServerState, facts: tuple[tuple[str, str], ...]) -> Verdict:
    return Verdict(
        "bad",
        "Broker refuses",
        f"Nothing starts and new jobs are refused, because the broker takes no work: {server.refusal}.",
        facts,
        # Whatever else the page shows follows from it: reports and leases lapse when they cannot be written.
        then=f"{server.remedy} Pools and scheduler only cannot say that they run: there is no need to restart them.",
    )


def _broker_unsafe(findings: Sequence[Finding]) -> list[Verdict]:
    return [
        Verdict(
            "bad" if found.severity == "error" else "warn",
            "Unsafe",
            f"The broker is not safe: {found.seen}.",
            then=f"{found.remedy}{_FOLLOWS.get(found.code, '')}",
        )
        for found in findings
    ]


# What the page's other lines cannot say.
_FOLLOWS = {"evicting": " New jobs are refused with 503 until then; what waits is worked off."}


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
        # A pool that works without pause shows a slot or two between two jobs at any moment.
        working = row.busy * 2 >= row.slots
        share = "all" if row.busy >= row.slots else f"{row.busy} of"
        cause = f"{share} {row.slots} slots are busy" if working else "its free slots take nothing up"
        then = (
            "It is on time again when the jobs that run now end faster than new ones come. If it stays, give the "
            "pool more slots in project/topology.py, or move its slow actor to another queue."
            if working
            else "Most likely its workers have just started or cannot reach the broker: look into the pool's log."
        )
        sentence = (
            f"{row.name} is {times(row.ratio or 0)} behind its promise, because {cause}; "
            f"{_jobs(row)}, the oldest for {duration(row.oldest_age_ms or 0)}."
        )
        found.append(Verdict(row.state.level, "Late", sentence, then=then))
    return found


def _paused(rows: Sequence[Track]) -> list[Verdict]:
    return [
        Verdict(
            "warn",
            "Paused",
            f"{row.name} starts nothing, because somebody paused it; {_jobs(row)}.",
            then=f"When the reason is gone: `manage.py queues resume {row.name}`.",
        )
        for row in rows
        if row.state.word == "Paused"
    ]


def _parked(state: YardState) -> list[Verdict]:
    parked = {stats.queue: stats.parked for stats in state.queues if stats.parked}
    if not parked:
        return []
    named = ", ".join(f"{count:,} of {queue}" for queue, count in parked.items())
    return [
        Verdict(
            "warn",
            "Parked",
            f"Jobs wait for a worker that knows their actor and arguments: {named}.",
            then="A deploy is under way, or sends before it works. `manage.py check_backlog` names the actors; what "
            "no pool knows within ten minutes becomes a dead letter.",
        )
    ]


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
            link="admin:switchyard_dead_letters_deadletter_changelist",
            query=f"?fingerprint={worst.fingerprint}",
        )
    ]


def _retrying(state: YardState) -> list[Verdict]:
    counts = {stats.queue: _in_lane(stats.retry) for stats in state.queues}
    many = {queue: count for queue, count in counts.items() if count >= MANY_RETRIES}
    if not many:
        return []
    named = ", ".join(f"{count:,} of {queue}" for queue, count in many.items())
    return [
        Verdict(
            "warn",
            "Retrying",
            f"Jobs that failed wait to be tried again: {named}.",
            then="Why is in the pools' log, in the lines `retried`, and by actor and exception in "
            "switchyard_retries_total. Mend that and they end by themselves; until then nothing is lost.",
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
    retrying = sum(_in_lane(stats.retry) for stats in state.queues)
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


def _in_lane(lane: LaneStats) -> int:
    return lane.waiting + lane.scheduled + lane.running


def _jobs(row: Track) -> str:
    count = (row.waiting or 0) + row.held
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"
