"""Diagnosis of the yard in one sentence: the first of its findings by the table of precedence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from switchyard.broker.health.server import ServerFinding
from switchyard.console.formatting import counted, duration, times
from switchyard.operations.findings import absent_pools, held, lateness
from switchyard.operations.findings.facts import YardFacts
from switchyard.operations.findings.finding import CHECK_BROKER, Act, Finding, FindingGroup
from switchyard.operations.findings.precedence import Level, Ranked, addon_words, ranked
from switchyard.operations.findings.scheduler import look_at_schedules
from switchyard.operations.rows import Row
from switchyard.operations.server_state import ServerState

BROKER, SCHEDULER, LETTERS, CHECKS = map(FindingGroup, ("broker", "scheduler", "dead letters", "checks"))
# Findings judged from the present state: the last examination is seconds old, and may say what has ended since.
JUDGED_NOW = (
    "broker.away", "broker.hangs", "broker.refused", "broker.takes_no_work", "broker.evicting", "broker.keyspace",
    "broker.missing", "broker.another", "broker.wrong_type", "broker.nearly_full", "broker.disk", "broker.loading",
    "broker.replica", "pools.down", "pools.returning", "pools.host_gone", "queues.late", "queues.just_late",
    "queues.ends_late", "queues.paused", "queues.limited", "queues.retrying", "scheduler.down", "dead letters.*",
    # The broker answers at this moment.
    *(f"{of}.{why}" for of in ("pools", "queues", "scheduler", "history") for why in ("away", "hangs", "refused")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headline of the overview: the first finding.

    Args:
        facts: Figures with their meaning.
        then: Remedy, or "".
        act: The one button; ``None`` where no page helps.
        findings: All of them, the first first.
    """

    level: Level
    label: str
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    then: str = ""
    act: Act | None = None
    findings: tuple[Ranked, ...] = ()

    @property
    def step(self) -> str:
        """Command that helps, or the next step in words; "" without a finding."""
        return self.findings[0].finding.next if self.findings else ""

    @property
    def subject(self) -> str:
        """Queue, pool, schedule or channel that the sentence is about; "" for none."""
        return self.findings[0].finding.subject if self.findings else ""

    @property
    def others(self) -> tuple[Ranked, ...]:
        """Further findings. Paused schedules are left out: the overview lists them with links of their own."""
        return tuple(found for found in self.findings[1:] if found.finding.name != "scheduler.paused")

    @property
    def also(self) -> tuple[str, ...]:
        """Further findings, as sentences."""
        return tuple(other.sentence for other in self.others)


def diagnose(
    facts: YardFacts | None, examined: Iterable[Finding] | None, open_letters: int, away: str | ServerFinding = ""
) -> Verdict:
    """Return the verdict.

    Args:
        facts: ``None`` while the broker is unavailable.
        examined: Findings of the last examination; ``None`` before the first has ended.
        open_letters: Number of dead letters not triaged yet.
        away: How the broker is unavailable, as half a sentence; or what is wrong with it while it answers.
    """
    if facts is None:
        unknown = _server(ServerState(findings=(away,))) if isinstance(away, ServerFinding) else [_broker_away(away)]
        return _verdict(ranked(unknown), ())
    known = examined if examined is not None else [_pending()]
    now = (*JUDGED_NOW, *(f"broker.{code}" for code, words in addon_words().items() if words.now))
    kept = [found for found in known if not any(fnmatchcase(found.name, name) for name in now)]
    return _verdict(ranked([*_now(facts, open_letters), *kept]), _figures(facts, open_letters))


def judged_now(facts: YardFacts) -> list[Ranked]:
    """Return the findings about broker, pools and queues, the first first: they need no database."""
    return ranked(_now(facts, open_letters=0))


def _now(facts: YardFacts, open_letters: int) -> Iterable[Finding]:
    yield from _server(facts.state.server)
    yield from absent_pools.look(facts)
    yield from lateness.look(facts)
    yield from held.look(facts)
    if not facts.state.scheduler_up:
        seen, step = "no scheduler leads: no schedule starts and no alert is sent", "manage.py switchyard runscheduler"
        then = f"Start `{step}`. Missed ticks are caught up as each schedule says; alerts wait."
        act = look_at_schedules()
        yield SCHEDULER.finding("warning", "down", seen, "No scheduler runs", step, then=then, act=act)
    if open_letters:
        yield _untriaged(open_letters)


def _verdict(found: Sequence[Ranked], figures: tuple[tuple[str, str], ...]) -> Verdict:
    if not found:
        return Verdict("ok", "Healthy", f"{lateness.none_late()}.", figures)
    first = found[0]
    sentence = f"{lateness.none_late()}; {first.clause}" if first.level == "ok" else first.sentence
    then = first.finding.then or first.finding.next
    return Verdict(first.level, first.label, sentence, figures, then, first.finding.act, tuple(found))


def _broker_away(how: str) -> Finding:
    seen = f"no job can be sent or seen from here, because {how or 'the broker does not answer'}"
    cause, step = "It is down, or cannot be reached from here", "manage.py switchyard broker"
    then = (
        "Whether workers reach it is not known from here. New jobs are refused with 503 until it answers; pools "
        "try again by themselves. Check that the server runs and that SWITCHYARD_BROKER_URL names it."
    )
    return BROKER.finding("error", "away", seen, cause, step, then=then, act=CHECK_BROKER)


def _server(server: ServerState) -> Iterable[Finding]:
    if server.refusal:
        seen = f"nothing starts and new jobs are refused, because the broker accepts no work: {server.refusal}"
        cause = "The server refuses writes"
        # The rest of the page follows from this: on Redis reports and leases expire, which cannot be written.
        then = f"{server.remedy} There is no need to restart pools or scheduler, also where they cannot report."
        yield BROKER.finding("error", "takes_no_work", seen, cause, server.remedy, then=then, act=CHECK_BROKER)
    for found in server.findings:
        then = f"{found.remedy}{_FOLLOWS.get(found.code, '')}"
        if found.partial:
            then += "" if server.pools_known else " The pools' reports are on it: which pools run is not known."
            then += "" if server.scheduler_known else " The scheduler's lease is on it: no schedule starts meanwhile."
        yield BROKER.finding(found.severity, found.code, found.seen, "", found.remedy, then=then, act=CHECK_BROKER)


# Consequences of a finding that the rest of the page does not show, by code.
_FOLLOWS = {"evicting": " New jobs are refused with 503 until then; waiting messages still run."}


def _untriaged(open_letters: int) -> Finding:
    count, cause = counted(open_letters, "dead letter"), "Nothing consumes a dead list"
    seen = f"{count} from before {'waits' if open_letters == 1 else 'wait'} to be triaged"
    then = f"{cause}: requeue the letters when the cause is removed, or discard them."
    step, act = "manage.py switchyard deadletters list", Act(f"Triage {count}", "switchyard-letters")
    return LETTERS.finding("warning", "untriaged", seen, cause, step, then=then, act=act)


def _pending() -> Finding:
    seen, then = "database, disk and configuration are not checked yet", "They are within seconds."
    return CHECKS.finding("warning", "pending", seen, "", "manage.py switchyard doctor", then=then)


def _figures(facts: YardFacts, open_letters: int) -> tuple[tuple[str, str], ...]:
    pools, queues = facts.state.pools.values(), facts.state.queues
    slots, busy = sum(pool.slots for pool in pools), sum(pool.busy for pool in pools)
    waiting, later = sum(stats.live.waiting for stats in queues), sum(stats.live.scheduled for stats in queues)
    retrying = sum(stats.retry.total for stats in queues)
    return (
        _closest(facts.rows),
        (f"{slots - busy:,} of {slots:,}", "slots idle"),
        (f"{waiting:,}", f"waiting, {later:,} held for later, {retrying:,} retrying"),
        (f"{open_letters:,}", f"dead letter{'' if open_letters == 1 else 's'} to triage"),
    )


def _closest(rows: Sequence[Row]) -> tuple[str, str]:
    """Return the figure of the queue that is nearest to its promise, or furthest past it."""
    starting = max((row for row in rows if row.ratio is not None), key=lambda row: row.ratio or 0, default=None)
    ending = max((row for row in rows if row.done_ratio), key=lambda row: row.done_ratio or 0, default=None)
    if ending is not None and (ending.done_ratio or 0) > ((starting and starting.ratio) or 0):
        return _share(ending.done_ratio or 0, "to end", ending.name, ending.unfinished_age_ms)
    if starting is not None:
        return _share(starting.ratio or 0, "to start", starting.name, starting.oldest_age_ms)
    return "None", "waits past its promise"


def _share(ratio: float, verb: str, name: str, age_ms: int | None) -> tuple[str, str]:
    # Rounded down: 100 % means that a promise is broken.
    if ratio <= 1:
        return f"{int(ratio * 100)} %", f"of its promise {verb}, the closest: {name}, {duration(age_ms or 0)}"
    return times(ratio), f"its promise {verb}, the furthest: {name}, {duration(age_ms or 0)}"
