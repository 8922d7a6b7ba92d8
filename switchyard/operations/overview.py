"""Data of the overview, read once, with the yard's diagnosis; a server that is away leaves its part empty.

A headline keeps still: which finding leads, and its words and button, stay for 10 s for all who look.
"""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Any, Final

import msgspec
from django.db import DatabaseError
from django.utils import timezone

from switchyard.alerts import notice as alerts
from switchyard.alerts.models import Alert
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError, BrokerRefused
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import facilities
from switchyard.broker.redis.own_keys import encode, read
from switchyard.broker.shapes import Whole
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Pool, Yard
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration, times
from switchyard.dead_letters import queries as dead_letters
from switchyard.history.queries import why_missing
from switchyard.operations.findings import finding, lateness
from switchyard.operations.findings import pools as pool_checks
from switchyard.operations.findings import queues as queue_checks
from switchyard.operations.findings.examine import KEPT, broker_away
from switchyard.operations.findings.facts import YardFacts, facts_of, holding
from switchyard.operations.findings.finding import (
    CHECK_BROKER,
    ENDED,
    LEVELS,
    Button,
    Finding,
    FindingGroup,
    Level,
    Ranked,
    explains,
    ranked,
)
from switchyard.operations.findings.records import look_at_schedules
from switchyard.operations.findings.spending import said_once
from switchyard.operations.metrics import YARD_STATE
from switchyard.operations.queries import YardState
from switchyard.operations.rows import UNKNOWN, Drawing, Row, RowStatus, draw, yard_rows
from switchyard.operations.supervisors import ServerState, read_server_state
from switchyard.operations.timeouts import NoAnswer, answers_within
from switchyard.schedules import queries as schedules
from switchyard.schedules.queries import ScheduleRow

KEPT_MS: Final = 10_000
# The words of a finding that has just come to lead may change: the pools' reports, every 2 s, say more of it.
SETTLES_MS: Final = 4_000
# A number or a time span, which may move: "5,895 ", "1 min 02 s".
_NUMBER: Final = re.compile(r"(\d[\d.,:]*( (ms|s|min|h|days?)\b)? ?)+")


@dataclass(frozen=True, slots=True)
class Headline:
    """The finding that leads, since when, and when it was last found with these words and this button."""

    finding: Finding
    since: Whole
    found_at: Whole


HEADLINE: Final = msgspec.json.Decoder(Headline)


def calm(found: Sequence[Ranked]) -> list[Ranked]:
    """Return findings in the order in which they are shown, with the headline that all processes share.

    The headline is kept in the broker; while that fails, findings are returned as they are.
    """
    if not found:
        return []
    records = facilities().records
    key = records.keys.headline()
    try:
        [data] = records.calls.look([("GET", key)])
        said, headline = keep(found, None if data is None else read(HEADLINE, data, key), now_ms())
        records.calls.command("SET", key, encode(headline), "PX", KEPT_MS)
    except BrokerError:
        return list(found)
    return said


def keep(found: Sequence[Ranked], kept: Headline | None, now: int) -> tuple[list[Ranked], Headline]:
    """Return findings, at least one, as they are said, and the headline to keep. One that has ended leads no longer."""
    lead = found[0]
    mine = None if kept is None else _again(found, kept.finding)
    if kept is None or mine is None or (mine is not lead and not _waits(lead, mine, now - kept.since)):
        return list(found), Headline(lead.finding, now, now)
    others = [each for each in found if each is not mine]
    settled = now - kept.since >= SETTLES_MS and now - kept.found_at < KEPT_MS
    if settled and mine.finding.severity == kept.finding.severity and _words(mine.finding) != _words(kept.finding):
        return [replace(mine, finding=kept.finding), *others], kept
    return [mine, *others], Headline(mine.finding, kept.since, now)


def _waits(lead: Ranked, mine: Ranked, led_ms: int) -> bool:
    """Return whether a finding waits for the one that leads: it is neither worse nor its cause, which is no past."""
    alike = LEVELS[lead.level] >= LEVELS[mine.level] and mine.finding.name != ENDED
    return led_ms < KEPT_MS and alike and not explains(lead, mine)


def _again(found: Sequence[Ranked], finding: Finding) -> Ranked | None:
    """Return a finding as it is found now, of several that with the same words; ``None`` for one that has ended."""
    of = (finding.name, finding.subject, finding.actor)
    alike = [each for each in found if (each.finding.name, each.finding.subject, each.finding.actor) == of]
    return next((each for each in alike if _words(each.finding) == _words(finding)), alike[0] if alike else None)


def _words(finding: Finding) -> tuple[str, ...]:
    """Return what does not change while numbers move: the sentence's words, the label, and where the button leads."""
    button = finding.button
    leads = (button.link, button.of, _NUMBER.sub("#", button.label)) if button is not None else ()
    return (_NUMBER.sub("#", finding.seen), finding.word, *leads)


def shown_rows(facts: YardFacts) -> list[Row]:
    """Return the rows of the yard with the words that pages show."""
    return [shown_row(row, facts) for row in facts.rows]


def shown_row(row: Row, facts: YardFacts) -> Row:
    """Return a row with the word that pages show."""
    if row.kind != "queue":
        return row
    if row.state.level == "ok":
        groups = [group for group in facts.held.get(row.queue, ()) if queue_checks.is_long(row.queue, group)]
        return replace(row, state=RowStatus("Limited", "warn", queue_checks.limited_text(groups[0]))) if groups else row
    if row.state.word != "Late" or (row.ratio or 0) <= 1:
        return row
    if failing := lateness.failing_holders(row, facts):
        return replace(row, state=replace(row.state, word=lateness.failing_word(failing.values())))
    blocking, flood = lateness.late_cause(row, facts)
    if blocking:
        return replace(row, state=replace(row.state, word=lateness.BLOCKED))
    return row if flood is None else replace(row, state=RowStatus(lateness.FLOODED, row.state.level, flood.text))


def most_held(row: Row, facts: YardFacts | None) -> tuple[str, int]:
    """Return the actor that holds most slots of a late queue, and how many; ("", 0) where it is less than half."""
    if facts is None or row.kind != "queue" or row.state.word not in lateness.LATE_WORDS:
        return "", 0
    held = Counter(job.actor for job in holding(row, facts.running or ()))
    actor, count = next(iter(held.most_common(1)), ("", 0))
    return (actor, count) if count * 2 >= row.slots else ("", 0)


BROKER, SCHEDULER, LETTERS, CHECKS = map(FindingGroup, ("broker", "scheduler", "dead letters", "checks"))
# Findings judged from the present state: the last examination is seconds old, and may say what has ended since.
JUDGED_NOW = (
    "broker.away", "broker.hangs", "broker.refused", "broker.takes_no_work", "broker.evicting", "broker.keyspace",
    "broker.missing", "broker.another", "broker.wrong_type", "broker.nearly_full", "broker.disk", "broker.loading",
    "broker.replica", "pools.down", "pools.returning", "pools.host_gone", "pools.child_silent", "queues.all_failing",
    "queues.late", "queues.just_late", "queues.ends_late", "queues.paused", "queues.limited", "queues.retrying",
    "queues.circuit_open", "scheduler.down", "dead letters.*",
    # The broker answers at this moment.
    *(f"{of}.{why}" for of in ("pools", "queues", "scheduler", "history") for why in ("away", "hangs", "refused")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headline of the overview: the first finding.

    Args:
        facts: Figures with their meaning.
        then: Remedy, or "".
        button: The one button; ``None`` where no page helps.
        findings: All of them, the first first.
    """

    level: Level
    label: str
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    then: str = ""
    button: Button | None = None
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
    def also(self) -> tuple[str, ...]:
        """Further findings, as sentences, but for paused schedules: the overview lists them with links of their own."""
        return tuple(other.sentence for other in self.findings[1:] if other.finding.name != "scheduler.paused")


def diagnose(
    facts: YardFacts | None,
    examined: Iterable[Finding] | None,
    open_letters: int,
    away: str | Finding | ServerFinding = "",
    settled_letters: int | None = None,
) -> Verdict:
    """Return the verdict.

    Args:
        facts: ``None`` while the broker is unavailable.
        examined: Findings of the last examination; ``None`` before the first has ended.
        open_letters: Number of dead letters not triaged yet; ``settled_letters`` of those that an examination has seen.
        away: How the broker is unavailable, as half a sentence; or what is wrong with it while it answers.
    """
    if facts is None:
        unknown = _server(ServerState(findings=(away,))) if isinstance(away, ServerFinding) else [_broker_away(away)]
        return _verdict(ranked(unknown), ())
    if examined is None:
        seen, then = "database, disk and configuration are not checked yet", "They are within seconds."
        examined = [CHECKS.warning("pending", seen, "", "manage.py switchyard doctor", then=then)]
    now = (*JUDGED_NOW, *(f"broker.{code}" for code, words in finding.addon_words().items() if words.now))
    kept = [found for found in examined if not any(fnmatchcase(found.name, name) for name in now)]
    told = sum(found.letters for found in kept)
    present, settled = list(_now(facts)), open_letters if settled_letters is None else settled_letters
    if settled > told:
        present.append(_untriaged(open_letters, told, settled - told))
    return _verdict(ranked(said_once([*present, *kept])), _figures(facts, open_letters))


def judged_now(facts: YardFacts) -> list[Ranked]:
    """Return the findings about broker, pools and queues, the first first: they need no database."""
    return ranked(_now(facts))


def _now(facts: YardFacts) -> Iterable[Finding]:
    yield from _server(facts.state.server)
    yield from pool_checks.look_at_absence(facts)
    yield from lateness.look(facts)
    yield from queue_checks.look_at_held(facts)
    if not facts.state.scheduler_up:
        seen, step = "no scheduler leads: no schedule starts", "manage.py switchyard runscheduler"
        then = f"Start `{step}`. Missed ticks are caught up as each schedule says; a pool sends the alerts meanwhile."
        button = look_at_schedules()
        yield SCHEDULER.warning("down", seen, "No scheduler runs", step, then=then, button=button)


def _verdict(found: Sequence[Ranked], figures: tuple[tuple[str, str], ...]) -> Verdict:
    if not found:
        return Verdict("ok", "Healthy", f"{lateness.none_late()}.", figures)
    first, of = found[0], found[0].finding
    sentence = f"{lateness.none_late()}; {first.clause}" if first.level == "ok" else first.sentence
    return Verdict(first.level, first.label, sentence, figures, of.then or of.next, of.button, tuple(found))


def _broker_away(away: str | Finding) -> Finding:
    if isinstance(away, str):  # it is not known why
        seen, cause = away or "the server does not answer", "It is down, or cannot be reached from here"
        step = "Check that the server runs and that SWITCHYARD_BROKER_URL names it; then `manage.py switchyard broker`"
        away = BROKER.error("away", seen, cause, step)
    seen = f"no job can be sent or seen from here, because {away.seen.replace('the server', 'the broker', 1)}"
    unknown = "Whether workers reach it is not known from here. New jobs are refused with 503 until it answers"
    then = f"{unknown}; pools try again by themselves. {away.next}."
    return BROKER.error("away", seen, away.cause, away.next, then=then, button=CHECK_BROKER)


def _server(server: ServerState) -> Iterable[Finding]:
    if server.refusal:
        seen = f"nothing starts and new jobs are refused, because the broker accepts no work: {server.refusal}"
        cause = "The server refuses writes"
        # The rest of the page follows from this: on Redis reports and leases expire, which cannot be written.
        then = f"{server.remedy} There is no need to restart pools or scheduler, also where they cannot report."
        yield BROKER.error("takes_no_work", seen, cause, server.remedy, then=then, button=CHECK_BROKER)
    for found in server.findings:
        then = f"{found.remedy}{_FOLLOWS.get(found.code, '')}"
        if found.partial:
            then += "" if server.pools_known else " The pools' reports are on it: which pools run is not known."
            then += "" if server.scheduler_known else " The scheduler's lease is on it: no schedule starts meanwhile."
        yield BROKER.finding(found.severity, found.code, found.seen, "", found.remedy, then=then, button=CHECK_BROKER)


# Consequences of a finding that the rest of the page does not show, by code.
_FOLLOWS = {"evicting": " New jobs are refused with 503 until then; waiting messages still run."}


def _untriaged(open_letters: int, told: int, rest: int) -> Finding:
    """Return the finding for the letters that no finding about an actor has told."""
    letters, cause = counted(rest, "more dead letter" if told else "dead letter"), "Nothing consumes a dead list"
    seen = f"{letters} {'waits' if rest == 1 else 'wait'} to be triaged"
    then = f"{cause}: requeue the letters when the cause is removed, or discard them."
    button = Button(f"Triage {counted(open_letters, 'dead letter')}", "switchyard-letters")
    step = "manage.py switchyard deadletters list"
    return LETTERS.warning("untriaged", seen, cause, step, then=then, button=button)


def _figures(facts: YardFacts, open_letters: int) -> tuple[tuple[str, str], ...]:
    pools, queues = facts.state.pools.values(), facts.state.queues
    slots, idle = sum(pool.slots for pool in pools), sum(pool.idle for pool in pools)
    slots_idle = f"{idle:,} of {slots:,}" if slots or not facts.state.server.refusal else "Unknown"  # no report is kept
    waiting, later = sum(stats.live.waiting for stats in queues), sum(stats.live.scheduled for stats in queues)
    retrying = sum(stats.retry.total for stats in queues)
    return (
        _closest(facts.rows),
        (slots_idle, "slots idle"),
        (f"{waiting:,}", f"waiting, {later:,} scheduled, {retrying:,} retrying"),
        (f"{open_letters:,}", f"dead letter{'' if open_letters == 1 else 's'} to triage"),
    )


def _closest(rows: Sequence[Row]) -> tuple[str, str]:
    """Return the figure of the queue that is nearest to its promise, or furthest past it."""
    starting = [(row.ratio, "to start", row.name, row.oldest_age_ms) for row in rows if row.ratio is not None]
    ending = [(row.done_ratio, "to end", row.name, row.unfinished_age_ms) for row in rows if row.done_ratio]
    found = max([*starting, *ending], key=itemgetter(0), default=None)
    if found is None:
        return "None", "waits past its promise"
    ratio, verb, name, age_ms = found
    age = duration(age_ms or 0)
    if ratio <= 1:  # rounded down: 100 % means that a promise is broken
        return f"{int(ratio * 100)} %", f"of its promise {verb}, the closest: {name}, {age}"
    return times(ratio), f"its promise {verb}, the furthest: {name}, {age}"


TIMEOUT_S = 2.0
DATABASE_TIMEOUT_S = 2.0
# A broker that was read before is called away once it has not answered for so long; what was read a while ago is gone.
SILENT_S, FORGOTTEN_S = 6.0, 60.0
KEPT_FOR = timedelta(hours=1)
# Younger letters may be of a finding that counts them at the next examination.
SETTLED = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Room:
    """The overview at one moment.

    ``alerts`` is ``None`` while the database is unavailable, ``running`` while the broker is. ``unwritten`` says why
    ended jobs are missing in the history; "" when none is. While the broker is away ``old_rows`` have the last figures
    that this process has read, at ``old_at``. ``quarantined`` messages are those that nobody can read.
    """

    verdict: Verdict
    rows: tuple[tuple[Row, Drawing], ...]
    pools: tuple[dict[str, Any], ...]
    pools_up: int
    slots: int
    memory_bytes: int
    alerts: tuple[Alert, ...] | None
    paused_schedules: tuple[ScheduleRow, ...]
    at: datetime
    away: bool
    running: list[Job] | None
    unwritten: str
    pools_known: bool
    quarantined: int | None = None
    old_rows: tuple[tuple[Row, Drawing], ...] = ()
    old_at: datetime | None = None

    @property
    def behind_s(self) -> int | None:
        """Age of the figures that the page draws; ``None`` where they are of this moment, or there are none."""
        return None if self.old_at is None else int((self.at - self.old_at).total_seconds())

    @property
    def drawn_rows(self) -> tuple[tuple[Row, Drawing], ...]:
        return self.old_rows or self.rows

    @property
    def also(self) -> tuple[str, ...]:
        """Sentences of the overview below its verdict."""
        paused = [f"{row.name} ({counted(row.missed, 'tick')} missed)" for row in self.paused_schedules]
        schedules_are = "1 schedule is" if len(paused) == 1 else f"{len(paused)} schedules are"
        of_schedules = [f"{schedules_are} paused: {', '.join(paused)}."] if paused else []
        return (*self.verdict.also, *of_schedules, *([f"Of the jobs, {self.unwritten}."] if self.unwritten else ()))


def overview() -> Room:
    """Read the overview; waits at most 2 s for the broker, and as long for the database."""
    facts, away = FACTS.read()
    state = facts.state if facts else None
    old_rows, old_at = FACTS.old_rows() if state is None else ((), None)
    rows = shown_rows(facts) if facts else yard_rows(declared_yard(), None)
    latest: tuple[Alert, ...] | None
    try:
        with answers_within(DATABASE_TIMEOUT_S):
            open_letters = dead_letters.open_count()
            settled = dead_letters.open_count(before=timezone.now() - SETTLED)
            latest, paused = tuple(alerts.recent()), schedules.paused(timezone.now())
    except DatabaseError:
        open_letters = settled = 0
        latest, paused = None, []
    pools = list(state.pools.values()) if state else []
    verdict = diagnose(facts, KEPT.findings(), open_letters, away, settled)
    if state is not None and not away and not state.server.away.places:
        verdict = _verdict(calm(verdict.findings), verdict.facts)
    told = any(found.finding.group == "history" for found in verdict.findings)
    return Room(
        verdict=verdict,
        # The slots of the actor that holds most of a late queue's slots are marked.
        rows=tuple((row, draw(row, *most_held(row, facts))) for row in rows),
        pools=tuple(_pool_row(pool, state) for pool in declared_yard().pools),
        pools_up=sum(pool.up for pool in pools),
        slots=sum(pool.slots for pool in pools),
        memory_bytes=sum(pool.memory_bytes for pool in pools),
        alerts=latest,
        paused_schedules=tuple(paused),
        at=timezone.now(),
        away=state is None,
        pools_known=state is not None and state.server.pools_known,
        quarantined=None if state is None else sum(stats.quarantined for stats in state.queues),
        running=facts.running if facts else None,
        unwritten=why_missing() if state and not away and not told else "",
        old_rows=tuple((row, draw(row)) for row in old_rows),
        old_at=old_at,
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """Facts with the yard that they are of, and the time at which they were read, by both clocks."""

    facts: YardFacts
    yard: Yard
    at: datetime
    at_s: float


class KeptFacts:
    """The facts of this process's last reading, which stand in for one that takes long: a busy machine is no fault."""

    def __init__(self) -> None:
        self._kept: _Reading | None = None
        self._silent_since_s: float | None = None

    def forget(self) -> None:
        self._kept = self._silent_since_s = None

    def keep(self, facts: YardFacts) -> None:
        """Keep facts that were read now."""
        self._silent_since_s = None
        self._kept = _Reading(facts, declared_yard(), timezone.now(), time.monotonic())

    def old_rows(self) -> tuple[tuple[Row, ...], datetime | None]:
        """Return the rows of the last reading, their state unknown, and its time; none of one an hour ago."""
        kept = self._kept
        if kept is None or kept.yard != declared_yard() or timezone.now() - kept.at > KEPT_FOR:
            return (), None
        rows = yard_rows(kept.yard, kept.facts.state)
        return tuple(replace(row, state=UNKNOWN) for row in rows), kept.at

    def read(self) -> tuple[YardFacts | None, str | Finding | ServerFinding]:
        """Return the facts, and why they are not current; ``None`` where the last are too old, or it is certain."""
        try:
            facts = facts_of(YARD_STATE.result(TIMEOUT_S, late_s=SILENT_S))
        except NoAnswer:
            now_s, kept = time.monotonic(), self._kept
            self._silent_since_s = self._silent_since_s or now_s - TIMEOUT_S
            if kept is None or now_s - kept.at_s > FORGOTTEN_S:
                return None, f"the broker does not answer within {TIMEOUT_S:g} s"
            away = f"the broker has not answered for {duration((now_s - self._silent_since_s) * 1_000)}"
            return (kept.facts if now_s - kept.at_s < SILENT_S else None), away
        except BrokerRefused as error:
            return None, _refusal(error)
        except BrokerError as error:
            return None, broker_away(BROKER, error)
        self.keep(facts)
        return facts, ""


FACTS = KeptFacts()


def _refusal(error: BrokerRefused) -> str | ServerFinding:
    """Return what is wrong with a server that answers with an error, such as a key that another program wrote."""
    found = facilities().records
    with contextlib.suppress(BrokerError):
        for wrong in read_server_state(found.calls, found.keys).errors:
            return wrong
    return f"the broker answers with an error: {error.cause.partition(' ')[0]}"


def _pool_row(pool: Pool, state: YardState | None) -> dict[str, Any]:
    """Return a line of the table of pools; ``state`` is ``None`` where no report can be read."""
    now = state.pools[pool.name] if state and state.server.pools_known else None
    counted = sorted(now.restarts.items()) if now else []
    return {
        "state": now,
        "name": pool.name,
        "kind": f"{pool.kind}, niced" if pool.nice else pool.kind,
        "processes": now.slots // pool.slots if now and now.slots and pool.per_core else pool.children,
        "slots": pool.slots,
        "beat_at": datetime_of(now.beat_at) if now and now.beat_at else None,
        "restarts": ", ".join(f"{count} by {reason}" for reason, count in counted) or ("0" if now else "unknown"),
    }
