"""Findings about the yard, the groups that they belong to, and the buttons that lead to their remedies."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal
from urllib.parse import urlencode

from switchyard.addon import addons
from switchyard.conf import in_words_of_project
from switchyard.console.links import page_url

Severity = Literal["ok", "skipped", "warning", "error"]

EXIT_CODES: dict[Severity, int] = {"ok": 0, "skipped": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True)
class Button:
    """A button: it says what it does and to how many. ``link``: URL name of its page; ``of``: the URL's argument."""

    label: str
    link: str
    of: str = ""
    query: str = ""

    @property
    def href(self) -> str:
        """Address that the button leads to; "" without a room."""
        address = page_url(self.link, *[self.of] if self.of else [])
        return address and address + self.query


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        group: Name of its group: ``configuration``, ``broker``, ``database``, ``pools``, ``queues``, ``actors``,
            ``scheduler``, ``history``, ``dead letters``, ``alerts``, ``disk``, ``storage``.
        code: Short name, stable across releases.
        severity: ``error``: work is lost, refused or held up; ``warning``: it will be, or a person should check;
            ``ok``: a fact; ``skipped``: not checked because of another finding.
        seen: Fact with its figures. Contains no address and no secret.
        cause: Most likely cause.
        next: Remedy: a command to copy, or a step.
        subject: Queue, pool, schedule or channel concerned; "" for the whole group.
        then: What happens by itself and what to do, for a page; "" repeats ``next``.
        button: Button of a page.
        factor: Weight among findings of one code, the largest first.
        word: Label of this one, where its code's says less; "" for that.
        actor: Actor concerned; "" for findings that are not about one.
        letters: Open dead letters that it counts, which no other finding counts again.
        also: Further queues that it is about.
        lasted_s: Seconds for which it has lasted, where that is known: whoever looks may have begun since.
    """

    group: str
    code: str
    severity: Severity
    seen: str
    cause: str = ""
    next: str = ""
    subject: str = ""
    then: str = ""
    button: Button | None = None
    factor: float = 0.0
    word: str = ""
    actor: str = ""
    letters: int = 0
    also: tuple[str, ...] = ()
    lasted_s: float | None = None

    @property
    def name(self) -> str:
        """Group and code, as the table of precedence has them."""
        return f"{self.group}.{self.code}"


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """A named group of checks, which builds its findings. ``Finding`` describes the arguments."""

    name: str

    def finding(
        self, severity: Severity, code: str, seen: str, cause: str, next_step: str, subject: str = "", *,
        then: str = "", **others: Any,
    ) -> Finding:  # fmt: skip
        """Return a finding whose severity was computed, with further fields by name."""
        seen, cause, next_step, then = map(in_words_of_project, (seen, cause, next_step, then))
        return Finding(self.name, code, severity, seen, cause, next_step, subject, then, **others)

    def ok(self, seen: str, *, cause: str = "", subject: str = "") -> Finding:
        return self.finding("ok", "ok", seen, cause, "", subject)

    def skipped(self, why: str) -> Finding:
        """Return the finding for a check that did not run."""
        return self.finding("skipped", "not_checked", f"not checked: {why}", "", "")

    def warning(self, code: str, seen: str, cause: str, next_step: str, subject: str = "", **others: Any) -> Finding:
        return self.finding("warning", code, seen, cause, next_step, subject, **others)

    def error(self, code: str, seen: str, cause: str, next_step: str, subject: str = "", **others: Any) -> Finding:
        return self.finding("error", code, seen, cause, next_step, subject, **others)


def jobs_button(label: str, **asked: str) -> Button:
    """Return the button that leads to the list of the jobs of a filter."""
    return Button(label, "switchyard-jobs", query=f"?{urlencode(asked)}")


LOOK_AT_WORKERS = Button("Show every worker", "switchyard-operations-workers")
CHECK_BROKER = Button("Check the broker again", "switchyard-operations")
CHECK_DATABASE = Button("Check the database again", "switchyard-operations")


def worst(findings: list[Finding]) -> Severity:
    """Return the severity of the whole: ``ok``, ``warning`` or ``error``."""
    return max((found.severity for found in findings), key=EXIT_CODES.__getitem__, default="ok")


Level = Literal["ok", "warn", "bad", "calm"]
LEVELS: dict[Level, int] = {"bad": 0, "warn": 1, "calm": 2, "ok": 3}
BY_SEVERITY: dict[str, Level] = {"error": "bad", "warning": "warn", "ok": "ok"}


@dataclass(frozen=True, slots=True)
class Rank:
    """Place of a finding among the others.

    Args:
        name: Group and code of the finding, ``*`` for any.
        label: Word above the sentence.
        level: Level of the headline; ``None`` takes the finding's severity. ``ok`` findings are left out without one.
        says: The sentence; ``{seen}`` is the finding's fact, ``{subject}`` what it is about.
        explains: Names of findings that follow from this one.
        same: It explains only those of its own subject, or of the queues that it is about as well.
        ends: What explains everything else: nothing else is said.
    """

    name: str
    label: str
    level: Level | None = None
    says: str = "{seen}."
    explains: tuple[str, ...] = ()
    same: bool = False
    ends: bool = False


OVERDUE = ("queues.late", "queues.just_late", "queues.ends_late", "queues.burning")
LATE = ("queues.all_failing", *OVERDUE)
ENDED = "actors.failed_before"
FAIL = ("actors.failing", "actors.gave_up", "actors.host_down")
UNSAFE = "The broker is not safe: {seen}."


def _unsafe(*codes: str) -> Iterator[Rank]:
    return (Rank(f"broker.{code}", "Unsafe", says=UNSAFE) for code in codes)


PRECEDENCE: tuple[Rank, ...] = (
    # Nothing starts anywhere.
    *(Rank(f"broker.{code}", "Broker away", ends=True) for code in ("away", "hangs", "refused")),
    Rank("broker.takes_no_work", "Broker refuses", ends=True),
    *_unsafe("keyspace", "missing", "another", "evicting", "wrong_type"),
    # One cause for many queues.
    Rank("pools.returning", "Broker is back", explains=(*LATE, "queues.lapsed", "scheduler.down", "pools.down")),
    Rank("database.locked", "Database locked", says="{seen}.", explains=(*LATE, "actors.*", "history.*", "database.*")),
    Rank("database.away", "Database away", says="Of the database: {seen}.", explains=(*LATE, "actors.*", "history.*")),
    *(Rank(f"database.{code}", "Database away", says="The database: {seen}.",
           explains=(*LATE, "actors.*", "history.*")) for code in ("refused", "bounced")),
    Rank("database.unmigrated", "Not migrated", says="The database: {seen}.", explains=("history.*", "actors.*")),
    # One queue starts nothing, or too late, and why. A server without an answer may be as well as its network is not.
    Rank("pools.down", "No pool", explains=(*LATE, "queues.lapsed"), same=True),
    Rank("pools.quieted", "Quieted", explains=(*LATE, "queues.lapsed"), same=True),
    Rank("pools.child_silent", "Child silent", explains=LATE, same=True),
    Rank("pools.paused", "Pool paused", says="The pool {seen}."),
    Rank("pools.starting", "Pool does not start", says="The pool {seen}."),
    Rank("database.hangs", "Database silent", explains=(*LATE, "actors.*", "history.*")),
    Rank("queues.all_failing", "Hangs", explains=(*FAIL, "queues.ends_late", "queues.retrying"), same=True),
    Rank("actors.dependency_down", "Dependency down", explains=(*LATE, *FAIL, "queues.circuit_open", "queues.retrying"),
         same=True),
    Rank("actors.database_bound", "Database slow", explains=(*OVERDUE, "actors.slower"), same=True),
    Rank("actors.host_down", "Host down", explains=(*OVERDUE, "queues.retrying"), same=True),
    Rank("queues.late", "Late", explains=("queues.ends_late", "queues.burning"), same=True),
    Rank("queues.ends_late", "Late"),
    Rank("queues.undeclared", "No queue"),
    Rank("queues.lapsed", "Stuck", says="In {seen}."),
    # Jobs fail.
    Rank("actors.poison", "Poison"),
    Rank("queues.crashing", "Crashing", says="In {seen}.", explains=("pools.restarts", "pools.crashing")),
    Rank("actors.failing", "Failing", explains=("queues.retrying",), same=True),
    Rank("actors.gave_up", "Failing"),
    Rank("scheduler.replaced", "Failing"),
    Rank("actors.slower", "Slower", explains=OVERDUE, same=True),
    Rank("pools.crashing", "Crashing", says="The pool {seen}."),
    Rank("actors.loops", "Flooded", explains=OVERDUE, same=True),
    Rank("actors.silent", "Silent"),
    Rank("actors.later", "Later"),
    Rank("queues.circuit_open", "Circuit open", explains=("queues.retrying",), same=True),
    Rank("queues.retrying", "Retrying"),
    # No worker can run them.
    Rank("queues.parked", "Parked", says="In {seen}."),
    Rank("queues.quarantined", "Quarantined", says="In {seen}."),
    # Held back on purpose.
    Rank("queues.paused", "Paused"),
    Rank("queues.purged", "Purged"),
    Rank("actors.outrun", "Limited", explains=("queues.limited",), same=True),
    Rank("queues.limited", "Limited"),
    Rank("queues.suspects", "Suspects", says="In {seen}."),
    # Fewer hands than there should be.
    Rank("pools.host_gone", "Host gone"),
    Rank("scheduler.down", "No scheduler", explains=("scheduler.late",)),
    Rank("scheduler.lease", "No scheduler", says="Of the scheduler, {seen}."),
    Rank("scheduler.late", "Schedule late"),
    *_unsafe("nearly_full"),
    Rank("queues.burning", "Late often"),
    Rank("pools.clock_off", "Clock", says="Of the clocks: {seen}."),
    Rank("pools.undeclared", "Old pool", says="The {seen}."),
    Rank("pools.releases", "Two releases"),
    Rank("pools.settings", "Two settings"),
    Rank("actors.leaking", "Leak"),
    # The room itself sees less.
    *(Rank(f"history.{code}", "History", says="Of the history: {seen}.") for code in ("down", "behind")),
    *_unsafe("rewrite_failed"),
    Rank("broker.clock_off", "Clock", says="Of the broker, {seen}."),
    Rank("database.*", "Database", says="Of the database: {seen}."),
    Rank("disk.metrics_gap", "On time", "ok", says="of the disk: {seen}."),
    Rank("disk.*", "Disk", says="Of the disk: {seen}."),
    Rank("alerts.channel", "Alerts not sent", says="Alerts do not reach {seen}."),
    Rank("alerts.open", "Open alerts", says="{seen}."),
    # Every queue is on time; a person should look some day.
    Rank("queues.just_late", "Just late", "calm"),
    Rank("scheduler.paused", "On time", "ok", says="the schedule {seen}."),
    *(Rank(f"pools.{code}", "On time", "ok", says="the pool {seen}.") for code in ("children", "restarts")),
    Rank("history.*", "On time", "ok", says="of the history: {seen}."),
    *_unsafe("disk", "replica", "loading", "too_old"),
    *_unsafe("no_quorum", "no_replica", "sentinels_split", "nothing_kept", "snapshots_only"),
    # The past, below all of its level that is present.
    Rank(ENDED, "Failed"),
    Rank("broker.*", "On time", "ok", says="of the broker: {seen}."),
    Rank("dead letters.untriaged", "On time", "ok", says="{seen}."),
    Rank("dead letters.*", "On time", "ok", says="of the dead letters, {seen}."),
    Rank("configuration.*", "On time", "ok", says="of the configuration: {seen}."),
    Rank("checks.pending", "On time", "ok", says="{seen}."),
    Rank("*", "Warning", says="{seen}."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """The words of an add-on for one of its findings about the broker.

    Args:
        cause: Most likely cause.
        rank: Its place, right before the rank named ``before``; ``None`` for that of other findings about the broker.
        now: It is judged from the present state as well.
        check: Id of its system check.
    """

    cause: str
    rank: Rank | None = None
    before: str = ""
    now: bool = False
    check: str = ""


@cache
def addon_words() -> dict[str, Words]:
    """Return the words of all add-ons, by the finding's code."""
    found: dict[str, Words] = {}
    for addon in addons():
        found |= addon.load("words") or {}
    return found


@cache
def precedence() -> tuple[Rank, ...]:
    """Return the table with the ranks of the add-ons."""
    placed = [(words.before, words.rank) for words in addon_words().values() if words.rank is not None]
    return tuple(
        each for rank in PRECEDENCE for each in (*(one for before, one in placed if before == rank.name), rank)
    )


@dataclass(frozen=True, slots=True)
class Ranked:
    """A finding at its place."""

    finding: Finding
    rank: Rank
    level: Level
    place: int

    @property
    def label(self) -> str:
        """Word above the sentence."""
        return self.finding.word or self.rank.label

    @property
    def clause(self) -> str:
        """The sentence as it stands after another one's semicolon."""
        return self.rank.says.format(seen=self.finding.seen, subject=self.finding.subject)

    @property
    def sentence(self) -> str:
        """The finding in words, for pages and commands."""
        text = self.clause
        return text[:1].upper() + text[1:] if text.startswith(_CAPITALISED) else text


# First words that are no name: names of queues, actors and hosts keep their case.
_CAPITALISED = (
    *("the ", "of the ", "half of ", "all of ", "less than ", "what ", "no ", "nothing ", "an operator "),
    *("child ", "children ", "every job ", "jobs of "),
)


def ranked(findings: Iterable[Finding]) -> list[Ranked]:
    """Return the findings to show, in their order."""
    placed = [found for finding in findings if (found := _placed(finding)) is not None]
    placed.sort(key=lambda found: (LEVELS[found.level], found.place, -found.finding.factor))
    if ending := next((found for found in placed if found.rank.ends), None):
        return [ending]
    ordered: list[Ranked] = []
    for found in placed:  # each before those that it explains, with the worst level of them
        at = next((index for index, before in enumerate(ordered) if explains(found, before)), len(ordered))
        level = min((each.level for each in (found, *ordered[at : at + 1])), key=LEVELS.__getitem__)
        ordered.insert(at, Ranked(found.finding, found.rank, level, found.place))
    return ordered


def _placed(finding: Finding) -> Ranked | None:
    place, rank = next((at, rank) for at, rank in enumerate(precedence()) if fnmatchcase(finding.name, rank.name))
    if finding.severity == "skipped" or (finding.severity == "ok" and rank.level != "calm"):
        return None
    return Ranked(finding, rank, rank.level or BY_SEVERITY[finding.severity], place)


def explains(cause: Ranked, effect: Ranked) -> bool:
    """Return whether a finding is the cause of another one."""
    name = effect.finding.name
    if cause.finding.name == name or not any(fnmatchcase(name, each) for each in cause.rank.explains):
        return False
    return not cause.rank.same or effect.finding.subject in (cause.finding.subject, *cause.finding.also)


def causes(found: Sequence[Ranked]) -> list[Ranked]:
    """Return those that no other explains."""
    return [each for each in found if not any(explains(other, each) for other in found)]
