"""The diagnosis: the one cause that comes first, with its evidence, how sure it is, and the smallest next step.

It is made of the findings that the overview says. Their order here is that of causes: what explains most comes first.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, actor_subject, ends, queue_subject
from switchyard.conf import declared_yard
from switchyard.console.formatting import duration
from switchyard.operations.findings.finding import Ranked, causes
from switchyard.operations.findings.lateness import BLOCKED, CATCHING_UP, FAILING, FLOODED, SLOTS_WAIT
from switchyard.operations.findings.spending import DATABASE_SLOW, DEPENDENCY_SLOW, merged_by_subject
from switchyard.operations.past import PAST
from switchyard.operations.plan import slots_with_backlog
from switchyard.operations.rows import Row

WINDOW_MS: Final = 120_000
# Actors that are told to take most of something, and the share from which one is.
MOST_EATERS, LEAST_EATEN = 3, 0.1
# Below, a sentence begins with "most likely".
SURE, UNSURE = 0.8, 0.5
# A run that holds slots is one of another kind from five times the mean of the others on, of so many at least.
OTHER_KIND, LEAST_OTHERS = 5.0, 5


@dataclass(frozen=True, slots=True)
class CauseKind:
    """A kind of cause.

    Args:
        confidence: From 0 to 1, as measured in a simulation of 16 yards; of kinds that were not in it, estimated.
        findings: Names of its findings, each perhaps with a label after a colon: only those with it.
    """

    name: str
    title: str
    confidence: float
    findings: tuple[str, ...]


PRECEDENCE: Final = (
    CauseKind("nothing_dispatches", "Nothing dispatches", 0.95, (
        "broker.away", "broker.hangs", "broker.refused", "broker.takes_no_work", "broker.evicting", "broker.keyspace",
        "broker.missing", "broker.another", "broker.wrong_type", "pools.down", "pools.quieted", "pools.paused",
        "pools.starting", "pools.returning", "pools.child_silent", "queues.paused",
    )),
    CauseKind("stuck", "Jobs of a lost pool are stuck", 0.9, ("queues.lapsed",)),
    CauseKind("dependency_down", "A dependency is down", 0.9, (
        "queues.all_failing:Hangs", "actors.dependency_down", "actors.host_down", "queues.circuit_open",
    )),
    CauseKind("database_bound", "The database holds up", 0.85, (
        "database.locked", "database.hangs", "database.away", "database.refused", "database.bounced",
        "database.connections", "database.unmigrated", "actors.database_bound",
        f"actors.slower:{DATABASE_SLOW}",
    )),
    CauseKind("failing", "Jobs fail", 0.9, (
        f"queues.all_failing:{FAILING}", "actors.poison", "queues.crashing", "actors.failing", "actors.gave_up",
        "scheduler.replaced",
    )),
    CauseKind("no_queue", "A queue is not declared", 0.9, ("queues.undeclared",)),
    CauseKind("not_runnable", "No worker can run it", 0.9, ("queues.parked", "queues.quarantined")),
    CauseKind("no_scheduler", "No scheduler runs", 0.9, ("scheduler.down",)),
    CauseKind("dependency_slow", "A dependency is slow", 0.8, (f"actors.slower:{DEPENDENCY_SLOW}",)),
    CauseKind("slower", "Slower than its own past", 0.8, ("actors.slower",)),
    CauseKind("crashing", "Workers crash", 0.9, ("pools.crashing",)),
    CauseKind("silent", "A producer is silent", 0.8, ("actors.silent", "actors.later")),
    CauseKind("wrong_queue", "The wrong queue", 0.85, (f"queues.late:{BLOCKED}",)),
    CauseKind("limit", "A limit is the cap", 0.85, ("queues.limited", "actors.outrun")),
    CauseKind("flood", "One of many floods", 0.85, (f"queues.late:{FLOODED}", "actors.loops")),
    CauseKind("head_of_line", "Long jobs stand before short ones", 0.85, ()),
    CauseKind("retry_storm", "A storm of retries", 0.8, ("queues.retrying",)),
    CauseKind("too_few_slots", "Too few slots", 0.8, ("queues.late",)),
    CauseKind("catches_up", "It catches up", 0.85, (f"queues.late:{CATCHING_UP}",)),
    CauseKind("ends_late", "Jobs end late", 0.8, ("queues.ends_late",)),
    CauseKind("late_often", "Late again and again", 0.8, ("queues.burning",)),
    CauseKind("memory", "The broker's memory is nearly full", 0.9, ("broker.nearly_full",)),
    CauseKind("leak", "An actor leaks", 0.8, ("actors.leaking",)),
)  # fmt: skip
BY_NAME: Final = {cause.name: cause for cause in PRECEDENCE}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause.

    Args:
        evidence: Figures of the last two minutes, from the facts; "" without them.
        next: A command to copy, or a step.
        link: Address of the page that helps; "" for none.
    """

    cause: str
    title: str
    sentence: str
    evidence: str
    confidence: float
    next: str
    link: str
    queue: str
    actor: str

    @property
    def said(self) -> str:
        """The sentence, less sure where the cause is."""
        return self.sentence if self.confidence >= SURE else f"Most likely: {self.sentence}"

    def as_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        return {name: getattr(self, name) for name in self.__slots__}


def diagnose(found: Sequence[Ranked], late: Mapping[str, Row], holders: Mapping[str, str]) -> list[Diagnosis]:
    """Return the causes of what is wrong now, the first first.

    Args:
        found: Findings as the overview ranks them; those that another one explains are left out.
        late: Rows of the late queues, by name.
        holders: Queue -> the actor that holds most of its slots.
    """
    window = _window()
    told: list[Diagnosis] = []
    for each in causes([one for one in found if one.level in ("bad", "warn")]):
        cause = _cause_of(each)
        if cause is None:
            continue
        queue, actor = each.finding.subject, each.finding.actor
        sentence, unsure = each.sentence, False
        if cause.name == "too_few_slots" and queue in late:
            actor, counts = holders.get(queue, ""), window.get(queue_subject(queue), {})
            if SLOTS_WAIT in each.finding.then:  # its jobs take longer than they did
                cause = BY_NAME["slower"]
            elif late[queue].busy * 2 < late[queue].slots:  # more slots would start nothing as well
                cause = BY_NAME["nothing_dispatches"]
                unsure = "nothing" not in sentence
            elif _is_of_another_kind(actor, queue, window):
                cause = BY_NAME["head_of_line"]
            elif needed := slots_needed(late[queue], counts, declared_yard().queue_of(queue).objective_ms):
                sentence = f"{sentence[:-1]}; about {needed:,} slots would do, {late[queue].slots:,} are there."
        link = each.finding.button.href if each.finding.button is not None else ""
        sure, evidence = UNSURE if unsure else cause.confidence, _evidence(window, queue, actor)
        step = each.finding.next
        told.append(Diagnosis(cause.name, cause.title, sentence, evidence, sure, step, link, queue, actor))
    return sorted(told, key=lambda one: PRECEDENCE.index(BY_NAME[one.cause]))


def _cause_of(found: Ranked) -> CauseKind | None:
    names = found.finding.name, f"{found.finding.name}:{found.label}"
    labelled = next((cause for cause in PRECEDENCE if names[1] in cause.findings), None)
    plain = (cause for cause in PRECEDENCE for name in cause.findings if fnmatchcase(names[0], name))
    return labelled or next(plain, None)


def _window() -> dict[str, dict[int, int]]:
    """Return what was counted within the last two minutes; nothing while the broker does not answer."""
    with suppress(BrokerError):
        store = facilities().facts
        return merged_by_subject(store.recent(store.server_ms())[-WINDOW_MS // facts.BUCKET_MS :])
    return {}


def _is_of_another_kind(actor: str, queue: str, window: Mapping[str, Counts]) -> bool:
    """Return whether an actor usually runs for much longer than the other jobs of a queue do, now or usually."""
    usual_ms = _usual_ms(actor_subject(actor))
    of_queue, own = window.get(queue_subject(queue), {}), window.get(actor_subject(actor), {})
    others, others_ms = ends(of_queue) - ends(own), _usual_ms(queue_subject(queue))
    if others >= LEAST_OTHERS:
        others_ms = (of_queue.get(facts.RUN_MS, 0) - own.get(facts.RUN_MS, 0)) / others
    return usual_ms is not None and others_ms is not None and usual_ms >= OTHER_KIND * others_ms


def _usual_ms(subject: str) -> float | None:
    with suppress(BrokerError):
        usual = PAST.usual(facilities().facts.server_ms()).get(subject)
        return None if usual is None else usual.run_ms
    return None


def slots_needed(row: Row, queue: Counts, objective_ms: int | None) -> int | None:
    """Return how many slots would do for a late queue, by its counts of the last two minutes, as for a pool.

    ``None`` where too little ended, or as many are there.
    """
    ended = ends(queue)
    if not ended:
        return None
    promise_s = None if objective_ms is None else objective_ms / 1_000
    run_s = queue.get(facts.RUN_MS, 0) / ended / 1_000
    load = facts.starts(queue) / (WINDOW_MS / 1_000) * run_s
    needed = slots_with_backlog(load, run_s, promise_s, row.waiting or 0)
    return needed if needed > row.slots else None


def eaters() -> dict[str, list[tuple[str, float]]]:
    """Return the actors that took most run time, processor time and SQL of the last two minutes, with their shares."""
    window, found = _window(), {}
    for kind, code in (("run", facts.RUN_MS), ("processor", facts.PROCESSOR_MS), ("sql", facts.SQL_MS)):
        actors = [(name[2:], counts.get(code, 0)) for name, counts in window.items() if name.startswith("a:")]
        total = sum(ms for _, ms in actors)
        most = sorted(actors, key=lambda pair: -pair[1])[:MOST_EATERS]
        found[kind] = [(actor, ms / total) for actor, ms in most if ms >= LEAST_EATEN * total > 0]
    return found


def _evidence(window: Mapping[str, Counts], queue: str, actor: str) -> str:
    parts = [
        _figures(name, window[subject])
        for name, subject in ((actor, actor_subject(actor)), (queue, queue_subject(queue)))
        if name and subject in window
    ]
    return f"Last 2 min: {'; '.join(parts)}." if parts else ""


def _figures(name: str, counts: Counts) -> str:
    halves = [
        f", half {did} at most {duration(facts.LEAST_MS * 2 ** max(math.ceil(math.log2(ms / facts.LEAST_MS)), 0))}"
        for did, first in (("ran", facts.RUNS), ("waited", facts.WAITS))
        if (ms := facts.percentile_ms(counts, first, 0.5))
    ]
    return f"{name} {ends(counts):,} attempts ended, {facts.failures(counts):,} failed{''.join(halves)}"
