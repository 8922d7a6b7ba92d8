"""Diagnosis of the yard in one sentence, by simple rules over measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.urls import reverse

from apps.platform.console.formatting import duration, times
from apps.platform.dead_letters.queries import LetterGroup
from apps.platform.operations.queries import YardState
from apps.platform.operations.rows import Level, Row
from apps.platform.operations.server_state import ServerState
from broker.health.server import ServerFinding
from broker.shapes import LaneStats, QueuePause

# In one sample, a wait of less than 1 s looks like a message that is just being fetched.
SEEN_MS = 1_000
# Fewer concurrent retries of one queue are normal: retries wait for hours, and one endpoint that is away holds dozens.
MANY_RETRIES = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headline of the overview: the most severe finding.

    Args:
        facts: Figures with their meaning.
        then: Remedy, or "".
        action: Label of the button; ``link`` is its URL name, ``of`` the URL's argument, ``query`` its query string.
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
    of: str = ""

    @property
    def href(self) -> str:
        """Address that the button leads to."""
        return reverse(self.link, args=[self.of] if self.of else None) + self.query


def diagnose(
    rows: Sequence[Row],
    state: YardState | None,
    recent: Sequence[LetterGroup] | None,
    open_letters: int,
    holders: Mapping[str, str] | None = None,
) -> Verdict:
    """Return the verdict.

    Args:
        state: ``None`` while the broker is unavailable.
        recent: Groups of messages that became dead letters in the last ten minutes; ``None`` while the database is
            unavailable.
        open_letters: Number of dead letters not triaged yet.
        holders: Who holds the slots, by queue, as words.
    """
    if state is None:
        return _broker_away()
    facts = _facts(rows, state, open_letters)
    if state.server.refusal:
        return _broker_refuses(state.server, facts)
    found = [
        *_broker_unsafe(state.server.errors),
        *_pools_down(rows),
        *_late(rows, holders or {}),
        *_done_late(rows),
        *_paused(rows, state),
        *_parked(state),
        *_failing(recent or ()),
        *_retrying(state),
        *_pools_missing(rows),
        *_no_scheduler(state),
        *_broker_unsafe(state.server.warnings),
    ]
    if not found and open_letters:
        return replace(_untriaged(open_letters), facts=facts)
    if not found:
        return Verdict("ok", "Healthy", "Every queue is on time.", facts)
    return replace(found[0], facts=facts, also=tuple(verdict.sentence for verdict in found[1:]))


def _broker_away() -> Verdict:
    return Verdict(
        "bad",
        "Broker away",
        "Nothing starts, because the broker does not answer.",
        then="Messages that were accepted are safe in the broker's files. New jobs are refused with 503 until it is "
        "back. Check that the server runs and that SWITCHYARD_BROKER_URL names it; the web's log holds the error.",
    )


def _broker_refuses(server: ServerState, facts: tuple[tuple[str, str], ...]) -> Verdict:
    return Verdict(
        "bad",
        "Broker refuses",
        f"Nothing starts and new jobs are refused, because the broker accepts no work: {server.refusal}.",
        facts,
        # The rest of the page follows from this: reports and leases expire when they cannot be written.
        then=f"{server.remedy} Pools and scheduler merely cannot report: there is no need to restart them.",
    )


def _broker_unsafe(findings: Sequence[ServerFinding]) -> list[Verdict]:
    return [
        Verdict(
            "bad" if found.severity == "error" else "warn",
            "Unsafe",
            f"The broker is not safe: {found.seen}.",
            then=f"{found.remedy}{_FOLLOWS.get(found.code, '')}",
        )
        for found in findings
    ]


# Consequences of a finding that the rest of the page does not show, by code.
_FOLLOWS = {"evicting": " New jobs are refused with 503 until then; waiting messages still run."}


def _pools_down(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(
            "bad",
            "No pool",
            f"{row.name} starts nothing, because no pool serves it; {_jobs(row)}.",
            then=f"Start the pool of {row.name} with `manage.py runpool`, or read its log. Nothing is lost.",
        )
        for row in rows
        if row.state.word == "No pool" and row.state.level == "bad"
    ]


def _late(rows: Sequence[Row], holders: Mapping[str, str]) -> list[Verdict]:
    late = [row for row in rows if row.state.word == "Late" and (row.ratio or 0) > 1]
    late = [row for row in late if (row.oldest_age_ms or 0) >= SEEN_MS]
    found = []
    for row in sorted(late, key=lambda row: row.ratio or 0, reverse=True):
        # A fully loaded pool still shows one or two free slots in any sample.
        working = row.busy * 2 >= row.slots
        share = "all" if row.busy >= row.slots else f"{row.busy} of"
        who = f" ({holders[row.queue]})" if row.queue in holders else ""
        cause = f"{share} {row.slots} slots are busy{who}" if working else "its free slots start nothing"
        then = (
            "It recovers when running jobs finish faster than new ones arrive. If it does not, give the "
            "pool more slots in project/topology.py, or move its slow actor to another queue."
            if working
            else "Most likely its workers have just started or cannot reach the broker: read the pool's log."
        )
        sentence = (
            f"{row.name} is {times(row.ratio or 0)} behind its promise, because {cause}; "
            f"{_jobs(row)}, the oldest for {duration(row.oldest_age_ms or 0)}."
        )
        found.append(_leading_to(row, "See who holds its slots", Verdict(row.state.level, "Late", sentence, then=then)))
    return found


def _done_late(rows: Sequence[Row]) -> list[Verdict]:
    """Return a verdict for each queue whose jobs start in time and end late."""
    late = [row for row in rows if row.state.word == "Late" and (row.ratio or 0) <= 1]
    late = [row for row in late if (row.unfinished_age_ms or 0) >= SEEN_MS]
    return [
        _leading_to(
            row,
            "See who holds its slots",
            Verdict(
                row.state.level,
                "Late",
                f"{row.name} starts its jobs in time and ends them late: the oldest is {times(row.done_ratio or 0)} "
                f"behind the promise to end, {duration(row.unfinished_age_ms or 0)} after it was ready.",
                then="What its tasks call is slow, or one of them hangs: its page shows what holds the slots.",
            ),
        )
        for row in sorted(late, key=lambda row: row.done_ratio or 0, reverse=True)
    ]


def _paused(rows: Sequence[Row], state: YardState) -> list[Verdict]:
    pauses = {stats.queue: stats.pause or QueuePause() for stats in state.queues}
    return [
        _leading_to(
            row,
            f"Look at {row.name}",
            Verdict(
                "warn",
                "Paused",
                f"{row.name} starts nothing, because {pause.by or 'an operator'} paused it"
                f"{f' ({pause.reason})' if pause.reason else ''}; {_jobs(row)}.",
                then=f"When the reason is gone, resume it on its page, or: `manage.py queues resume {row.name}`."
                f"{' It resumes by itself at the time that its page states.' if pause.until else ''}",
            ),
        )
        for row in rows
        if row.state.word == "Paused"
        for pause in [pauses[row.queue]]
    ]


def _leading_to(row: Row, action: str, verdict: Verdict) -> Verdict:
    """Return a verdict with a button that leads to the page of a row's queue."""
    return replace(verdict, action=action, link="switchyard-queue", of=row.queue)


def _parked(state: YardState) -> list[Verdict]:
    return _by_queue(
        {stats.queue: stats.parked for stats in state.queues if stats.parked},
        "Parked",
        "Jobs wait for a worker that knows their actor and arguments",
        "A deploy is under way, or senders were deployed before workers. `manage.py check_backlog` names the actors; "
        "jobs that no pool can run within ten minutes become dead letters.",
    )


def _by_queue(counts: dict[str, int], label: str, fact: str, then: str) -> list[Verdict]:
    """Return one warning that lists a count for each queue, or nothing when there is none."""
    if not counts:
        return []
    listed = ", ".join(f"{count:,} of {queue}" for queue, count in counts.items())
    return [Verdict("warn", label, f"{fact}: {listed}.", then=then)]


def _failing(recent: Sequence[LetterGroup]) -> list[Verdict]:
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
            then="Nothing consumes a dead list: requeue the letters when the cause is removed, or discard them.",
            action=f"Triage {worst.letters:,} dead letter{'' if worst.letters == 1 else 's'}",
            link="admin:switchyard_dead_letters_deadletter_changelist",
            query=f"?fingerprint={worst.fingerprint}",
        )
    ]


def _untriaged(open_letters: int) -> Verdict:
    count = f"{open_letters:,} dead letter{'' if open_letters == 1 else 's'}"
    return Verdict(
        "ok",
        "On time",
        f"Every queue is on time; {count} from before {'waits' if open_letters == 1 else 'wait'} to be triaged.",
        then="Nothing consumes a dead list: requeue the letters when the cause is removed, or discard them.",
        action=f"Triage {count}",
        link="admin:switchyard_dead_letters_deadletter_changelist",
    )


def _retrying(state: YardState) -> list[Verdict]:
    counts = {stats.queue: _in_lane(stats.retry) for stats in state.queues}
    return _by_queue(
        {queue: count for queue, count in counts.items() if count >= MANY_RETRIES},
        "Retrying",
        "Failed jobs wait for a retry",
        "The causes are in the pools' log, in the lines `retried`, and by actor and exception in "
        "switchyard_retries_total. Remove the cause and they finish by themselves; until then nothing is lost.",
    )


def _pools_missing(rows: Sequence[Row]) -> list[Verdict]:
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


def _facts(rows: Sequence[Row], state: YardState, open_letters: int) -> tuple[tuple[str, str], ...]:
    slots = sum(pool.slots for pool in state.pools.values())
    busy = sum(pool.busy for pool in state.pools.values())
    waiting = sum(stats.live.waiting for stats in state.queues)
    retrying = sum(_in_lane(stats.retry) for stats in state.queues)
    closest = max((row for row in rows if row.ratio is not None), key=lambda row: row.ratio or 0, default=None)
    first = ("None", "waits past its promise")
    ending = max((row for row in rows if row.done_ratio), key=lambda row: row.done_ratio or 0, default=None)
    if closest is not None and closest.ratio is not None:
        # Rounded down: 100 % means that a promise is broken.
        share = f"{int(closest.ratio * 100)} %" if closest.ratio <= 1 else times(closest.ratio)
        first = (share, f"closest to its promise: {closest.name}, {duration(closest.oldest_age_ms or 0)}")
    if ending is not None and ending.done_ratio and ending.done_ratio > ((closest and closest.ratio) or 0):
        share = f"{int(ending.done_ratio * 100)} %" if ending.done_ratio <= 1 else times(ending.done_ratio)
        first = (share, f"closest to its promise to end: {ending.name}, {duration(ending.unfinished_age_ms or 0)}")
    return (
        first,
        (f"{slots - busy:,} of {slots:,}", "slots idle"),
        (f"{waiting:,}", f"wait, {retrying:,} more retry"),
        (f"{open_letters:,}", f"dead letter{'' if open_letters == 1 else 's'} to triage"),
    )


def _in_lane(lane: LaneStats) -> int:
    return lane.waiting + lane.scheduled + lane.running


def _jobs(row: Row) -> str:
    count = (row.waiting or 0) + row.held
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"
