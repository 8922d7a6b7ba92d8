"""Actors of this code, for pages and commands, and their figures: attempts on all hosts, and failures."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import dramatiq
from dramatiq.actor import Actor

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError, NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.redis.own_keys import number
from switchyard.broker.stores import yard_facts as facts
from switchyard.conf import declared_yard
from switchyard.console.formatting import duration
from switchyard.dead_letters.queries import first_seen, groups, listing
from switchyard.history.models import JobRow, SearchValue
from switchyard.jobs.queries import families
from switchyard.middleware.errors import place_of
from switchyard.middleware.options import rules_of
from switchyard.operations.findings.spending import merged_by_subject
from switchyard.operations.past import PAST, day_of_all, median_ms

DAY_MS = 86_400_000
# Rows that one page reads: the newest of a day.
LOOKED_THROUGH = 10_000
MOST_GROUPS = 20


def rate_text(count: float, span_ms: int) -> str:
    """Return a rate as text, a minute."""
    rate = count * facts.MINUTE_MS / span_ms
    return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}" if rate >= 0.095 else f"{rate:.2f}"


class EndedRow(NamedTuple):
    """One row of the history, with the columns that failures are told by."""

    finished_at: int
    state: str
    failed_at: int | None
    fingerprint: str | None
    error_type: str
    error_message: str
    release: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Jobs of the last day with a failed attempt of one fingerprint, and its open dead letters.

    Args:
        first_at: Of all, also of letters no longer open; ``release`` is that of the first, "" where the history does
            not reach back to it.
        letters: ``None`` for a user who may not see them.
    """

    fingerprint: str
    exception: str
    error: str
    jobs: int
    first_at: datetime
    last_at: datetime
    release: str = ""
    letters: int | None = None


@dataclass(frozen=True, slots=True)
class ActorHistory:
    """Failures of one actor from the history; an actor may keep a part of its jobs only (option ``history``).

    ``dead_since`` is the release of every job that gave up, where jobs of another ended before and none gave up.
    """

    failures: tuple[FailureGroup, ...] = ()
    dead_since: str = ""


def of_actor(actor: str) -> ActorHistory:
    """Return an actor's failures of the last day; reads at most ``LOOKED_THROUGH`` rows, by one index."""
    rows = JobRow.objects.filter(actor=actor, finished_at__gte=now_ms() - DAY_MS).order_by("-finished_at", "-pk")
    found = [EndedRow(*row) for row in rows.values_list(*EndedRow.__annotations__)[:LOOKED_THROUGH]]
    return ActorHistory(tuple(_failures(found)), _dead_since(found))


def _dead_since(rows: Sequence[EndedRow]) -> str:
    dead = [row for row in rows if row.state == "dead"]
    releases = {row.release for row in dead}
    if len(releases) != 1 or "" in releases:
        return ""
    first = min(row.finished_at for row in dead)
    [release] = releases
    return release if any(row.finished_at < first and row.release not in ("", release) for row in rows) else ""


def _failures(rows: Iterable[EndedRow]) -> Iterator[FailureGroup]:
    groups: dict[str, list[EndedRow]] = {}
    for row in rows:
        if row.failed_at is not None and row.fingerprint:
            groups.setdefault(row.fingerprint, []).append(row)
    for fingerprint, failed in groups.items():
        newest, moments = failed[0], [row.failed_at or 0 for row in failed]
        yield FailureGroup(
            fingerprint=fingerprint, exception=newest.error_type, error=newest.error_message.partition("\n")[0][:200],
            jobs=len(failed), first_at=datetime_of(min(moments)), last_at=datetime_of(max(moments)),
            release=failed[moments.index(min(moments))].release,
        )  # fmt: skip


def failures_of(actor: str, ended: Iterable[FailureGroup] | None, *, letters: bool) -> list[FailureGroup]:
    """Return an actor's failures, the newest first: those from the history, unless ``None``, and with ``letters``."""
    told = {group.fingerprint: group for group in _open_letters(actor)} if letters else {}
    for failure in ended or ():
        known = told.get(failure.fingerprint)
        group = replace(failure, letters=0 if letters else None)
        if known is not None:
            first, last = min(group.first_at, known.first_at), max(group.last_at, known.last_at)
            release = group.release if group.first_at <= known.first_at else ""
            group = replace(group, letters=known.letters, first_at=first, last_at=last, release=release)
        told[failure.fingerprint] = group
    return sorted(told.values(), key=lambda group: group.last_at, reverse=True)[:MOST_GROUPS]


def _open_letters(actor: str) -> list[FailureGroup]:
    found = groups(of=listing().filter(actor=actor), limit=MOST_GROUPS, order="-last_at")
    first = first_seen([group.fingerprint for group in found])
    return [
        FailureGroup(
            fingerprint=of.fingerprint, exception=of.exception, error=of.error.partition("\n")[0][:200], jobs=0,
            first_at=first[of.fingerprint], last_at=of.last_at, letters=of.letters,
        )
        for of in found
    ]  # fmt: skip


# Grown is the growth of the processes that ran it, beyond their largest size.
SUMS = {
    "total_ms": facts.RUN_MS,
    "processor_ms": facts.PROCESSOR_MS,
    "sql_ms": facts.SQL_MS,
    "log_bytes": facts.LOG_BYTES,
    "grown_bytes": facts.GROWN_BYTES,
}


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """Attempts of an actor over a time, from the facts: see :mod:`switchyard.broker.stores.yard_facts`."""

    title: str
    span_ms: int
    counts: facts.Counts

    @property
    def outcomes(self) -> list[tuple[str, int]]:
        """How they ended, most frequent first."""
        found = [(outcome, self.counts.get(code, 0)) for outcome, code in facts.OUTCOMES.items()]
        return sorted(((outcome, count) for outcome, count in found if count), key=lambda pair: -pair[1])

    @property
    def attempts(self) -> int:
        return sum(count for _, count in self.outcomes)

    @property
    def jobs(self) -> int:
        """Jobs that ended with one of them."""
        return sum(count for outcome, count in self.outcomes if outcome not in ("retried", "deferred"))

    @property
    def a_minute(self) -> str:
        return rate_text(self.attempts, self.span_ms)

    @property
    def run_ms(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the runs."""
        return _percentiles_of(self.counts, facts.RUNS)

    @property
    def wait_ms(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the waits."""
        return _percentiles_of(self.counts, facts.WAITS)

    @property
    def sums(self) -> dict[str, int]:
        """Of all attempts together: how long they ran, also in their own threads and in SQL, and what they left."""
        return {name: self.counts.get(code, 0) for name, code in SUMS.items()}

    def as_json(self) -> dict[str, Any]:
        """Return them as commands print them."""
        names = {"run_ms": self.run_ms, "wait_ms": self.wait_ms}
        spread = {name: None if pair is None else [round(ms, 1) for ms in pair] for name, pair in names.items()}
        return {
            "span_ms": self.span_ms, "outcomes": dict(self.outcomes), "sent": facts.sent(self.counts),
            **spread, **self.sums,
        }  # fmt: skip


def _percentiles_of(counts: facts.Counts, first: int) -> tuple[float, float] | None:
    middle, most = median_ms(counts, first), facts.percentile_ms(counts, first, 0.95)
    return None if middle is None or most is None else (middle, most)


def lately(actor: str) -> list[AttemptFigures]:
    """Return an actor's figures of the last 15 minutes, hour and day, on all hosts."""
    store, subject = facilities().facts, facts.actor_subject(actor)
    now = store.server_ms()
    hour_ago = now - facts.HOUR_MS
    minutes = store.minutes(subject, now - DAY_MS, now)
    latest = [(at, found.get(subject, {})) for at, found in store.recent(now)]
    # A minute is written a while after its end, and none while no history writer runs.
    parts = [*minutes.items(), *(part for part in latest if part[0] - part[0] % facts.MINUTE_MS not in minutes)]
    return [
        AttemptFigures("last 15 minutes", facts.RECENT_MS, facts.merged(found for _, found in latest)),
        AttemptFigures("last hour", facts.HOUR_MS, facts.merged(part for at, part in parts if at >= hour_ago)),
        AttemptFigures("last day", DAY_MS, facts.merged(found for _, found in parts)),
    ]


def hosts_called(actor: Actor[..., Any]) -> list[tuple[str, int, int]]:
    """Return the hosts of an actor's dependency with the most failures, then calls, in the last 15 minutes.

    Each with its calls, and how many of them failed because of it.
    """
    dependency, store = str(actor.options.get("depends_on") or "").partition(" ")[0], facilities().facts
    found = merged_by_subject(store.recent(store.server_ms())) if dependency else {}
    of = f"{facts.dependency_subject(dependency)} "
    called = ((name.removeprefix(of), counts) for name, counts in found.items() if name.startswith(of))
    hosts = [(host, facts.ends(counts), facts.failures(counts)) for host, counts in called]
    return sorted(hosts, key=lambda each: (-each[2], -each[1], each[0]))[:MOST_GROUPS]


def last_day(subject_of: Callable[[str], str] = facts.actor_subject) -> dict[str, AttemptFigures]:
    """Return the figures of every actor that ran in the last 24 hours, by name; empty while the broker is away.

    Args:
        subject_of: Subjects of those whose figures these are: ``owner_subject`` for owners.
    """
    try:
        found = day_of_all(facilities().facts.server_ms())
    except BrokerError:
        return {}
    prefix = subject_of("")
    return {
        subject.removeprefix(prefix): AttemptFigures("last day", DAY_MS, counts)
        for subject, counts in found.items()
        if subject.startswith(prefix) and any(counts.get(code) for code in facts.OUTCOMES.values())
    }


def searched_arguments() -> list[str]:
    """Return the arguments by which the jobs of an actor of this code are found."""
    return sorted({name for actor in dramatiq.get_broker().actors.values() for name in actor.options.get("search", ())})


def by_argument(name: str) -> dict[str, AttemptFigures]:
    """Return the last attempts of the newest jobs of the last day, by the value of an argument in ``search``.

    It reads at most ``LOOKED_THROUGH`` jobs; ``DatabaseError`` where the database does not answer.
    """
    newest = JobRow.objects.filter(finished_at__gte=now_ms() - DAY_MS).order_by("-finished_at", "-pk")[:LOOKED_THROUGH]
    values = SearchValue.objects.filter(name=name, job_id__in=newest.values("job_id")).values_list("job_id", "value")
    found, parts = dict(values), dict[str, list[facts.Counts]]()
    for job_id, state, run_ms in newest.values_list("job_id", "state", "run_ms"):
        if job_id in found:
            counts = {facts.RUN_MS: run_ms or 0, facts.OUTCOMES.get(state, facts.RETRIED): 1}
            parts.setdefault(found[job_id], []).append(counts)
    return {value: AttemptFigures("last day", DAY_MS, facts.merged(each)) for value, each in parts.items()}


def usual_text(actor: str) -> str:
    """Return what is usual of an actor at this hour, as a sentence; "" where nothing is known."""
    usual = PAST.usual(facilities().facts.server_ms()).get(facts.actor_subject(actor))
    if usual is None:
        return ""
    parts = []
    if usual.run_ms is not None:
        parts.append(f"it takes {duration(usual.run_ms)} and waits {duration(usual.wait_ms or 0)}")
    if usual.sent_a_minute is not None:
        parts.append(f"{rate_text(usual.sent_a_minute, facts.MINUTE_MS)} a minute are sent")
    if usual.failing is not None:
        parts.append(f"{usual.failing:.1%} of its attempts fail".replace("%", " %"))
    return f"Usually {usual.basis}, {', '.join(parts)}." if parts else ""


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """One option of an actor: its value for JSON and as Python writes it, and what it takes, in words ("" for none)."""

    name: str
    value: Any
    text: str
    rule: str


@dataclass(frozen=True, slots=True)
class ActorFacts:
    """An actor with its place in the code (file and line of its first decorator) and in the yard.

    ``options`` differ from the default; a job is interrupted after ``soft_limit_ms``.
    """

    name: str
    queue: str
    pools: tuple[str, ...]
    module: str
    place: str
    docstring: str
    options: tuple[DeclaredOption, ...]
    soft_limit_ms: int | None

    @property
    def summary(self) -> str:
        return self.docstring.partition("\n")[0]


def all_actors() -> list[ActorFacts]:
    """Return the facts of every actor, by name."""
    return [facts_of(actor) for _, actor in sorted(dramatiq.get_broker().actors.items())]


def find_actor(name: str) -> Actor[..., Any]:
    """Return an actor by its name; ``NotFound`` when this code has none."""
    actors: dict[str, Actor[..., Any]] = dramatiq.get_broker().actors
    if name not in actors:
        near = difflib.get_close_matches(name, list(actors), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard actors list"
        raise NotFound(f"actor {name:.200}: this code has no actor of that name; {remedy}")
    return actors[name]


def facts_of(actor: Actor[..., Any]) -> ActorFacts:
    return ActorFacts(
        name=actor.actor_name,
        queue=actor.queue_name,
        pools=tuple(pool.name for pool in declared_yard().pools_of(actor.queue_name)),
        module=actor.fn.__module__,
        place=place_of(actor.fn),
        docstring=inspect.getdoc(actor.fn) or "",
        options=tuple(_options_of(actor)),
        soft_limit_ms=actor.options.get("time_limit"),
    )


def _options_of(actor: Actor[..., Any]) -> list[DeclaredOption]:
    rules, limits = rules_of(actor.broker), {queue.name: queue.soft_limit_ms for queue in declared_yard().queues}
    options: dict[str, Any] = dict(actor.options)
    if "time_limit" in options and options["time_limit"] == limits.get(actor.queue_name, -1):
        del options["time_limit"]  # as its middleware took it from the queue
    if actor.priority:
        options["priority"] = actor.priority
    return [
        DeclaredOption(name, _plain(value), _written(value), rules[name].text(actor) if name in rules else "")
        for name, value in sorted(options.items())
    ]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else _written(value)


def _written(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    if isinstance(value, tuple) and value and all(isinstance(each, type) for each in value):
        return f"({', '.join(each.__qualname__ for each in value)},)"
    text = repr(value)
    return f'cron("{value}")' if text.startswith("<CronSpec") else text


def yields_of(actor: str) -> int:
    """Return how many sends of an actor met a unique key which another unfinished message held."""
    asked = families()
    found = asked[0].calls.look([("HGET", family.keys.yields, actor) for family in asked]) if asked else []
    return sum(number(count, family.keys.yields) for family, count in zip(asked, found, strict=True))
