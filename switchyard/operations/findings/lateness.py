"""Queues that are late against their own promises, and the actors that hold their slots."""

from __future__ import annotations

import shlex
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

import dramatiq

from switchyard.broker.admin.browse import look as look_into
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import counted, duration, times, whole_duration
from switchyard.jobs.queries import families
from switchyard.operations.findings.facts import YardFacts, flood_of
from switchyard.operations.findings.finding import Act, Finding, FindingGroup, Severity
from switchyard.operations.findings.pools import HOLDS_UP, silent_cause
from switchyard.operations.rows import BAD_RATIO, Row

GROUP = FindingGroup("queues")
# A shorter wait in one sample may be a message that is being fetched: it has to be late in most of the last samples.
SEEN_MS = 1_000
SAMPLES, LATE_SAMPLES, SAMPLES_S = 3, 2, 20.0
# Actors that are named; the others are counted together.
NAMED = 2
# Waiting messages of which those of one actor are counted.
COUNTED = 500
# Share of the slots from which one actor is the cause.
MOST = 0.5
# A run of so many times a queue's promise lets the next message wait past it.
TOO_LONG = 3
# A supervisor reports every 2 s.
SILENT_MS = 6_000
# Words for a late queue, in the yard and above the sentence, where its cause is known; "Late" where it is not.
BLOCKED, FLOODED = "Blocked", "Flooded"
LATE_WORDS = ("Late", BLOCKED, FLOODED)
JOBS = "switchyard-jobs"


class LateSamples:
    """The last samples in which queues were late, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, frozenset[str]]] = deque(maxlen=SAMPLES)

    def note(self, late: Iterable[str]) -> frozenset[str]:
        """Keep a sample, and return the queues that are late now and were in most of the last samples."""
        now_s, late = time.monotonic(), frozenset(late)
        with self._lock:
            if not self._samples or now_s - self._samples[-1][0] >= 0.5:
                self._samples.append((now_s, late))
            recent = [names for at_s, names in self._samples if now_s - at_s <= SAMPLES_S]
        return frozenset(name for name in late if sum(name in names for names in recent) >= LATE_SAMPLES)

    def clear(self) -> None:
        """Forget the samples."""
        with self._lock:
            self._samples.clear()


SAMPLED = LateSamples()


def look(facts: YardFacts) -> Iterator[Finding]:
    """Judge every queue against its own promise."""
    late = [row for row in facts.queue_rows if row.state.word == "Late" and (row.ratio or 0) > 1]
    lasting = SAMPLED.note(row.queue for row in late)
    for row in late:
        if (row.oldest_age_ms or 0) >= SEEN_MS or row.queue in lasting:
            yield _late(row, facts)
        else:
            yield _just_late(row)
    for row in facts.queue_rows:
        if row.state.word == "Late" and (row.ratio or 0) <= 1:
            yield _ends_late(row)


def holders_text(counts: Counter[str]) -> str:
    """Return who holds slots: ``6 × export, 2 × others``."""
    first = counts.most_common(NAMED)
    others = counts.total() - sum(count for _, count in first)
    named = [f"{count:,} × {actor}" for actor, count in first]
    return ", ".join([*named, f"{others:,} × others"] if others else named)


def none_late() -> str:
    """Return what is said of queues of which none is late. Not every server tells for how long a message has waited."""
    place = switchyard_settings().place
    if place is not None and not place.tells_ages:
        return f"Whether a queue is late is not known, as {place.title} tells no ages"
    return "Every queue is on time"


def jobs_text(count: int) -> str:
    """Return how many jobs wait: ``1 job waits``."""
    return f"{counted(count, 'job')} wait{'s' if count == 1 else ''}"


def blocking_actor(row: Row, facts: YardFacts) -> str:
    """Return the actor that runs too long for a late queue and holds most of its slots, or ""."""
    return _cause(row, declared_yard().queue_of(row.queue), facts)[2]


def _late(row: Row, facts: YardFacts) -> Finding:
    queue = declared_yard().queue_of(row.queue)
    cause, then, misplaced = _cause(row, queue, facts)
    flood = None if misplaced else flood_of(row)
    share = f"about {flood.percent} of them of {flood.owner}, " if flood else ""
    seen = (
        f"{row.name} is {times(row.ratio or 0)} behind its promise, because {cause}; "
        f"{jobs_text(row.waiting or 0)}, {share}the oldest for {duration(row.oldest_age_ms or 0)}"
    )
    act = _move_act(row, misplaced) if misplaced else None
    step = f"manage.py switchyard queues status {row.queue}"
    if act is not None:
        step = f"manage.py switchyard queues relocate {misplaced} --from {row.queue} --to QUEUE"
    if flood is not None:
        query = urlencode({"state": "queued", "queue": row.queue, "owner": flood.owner})
        act = Act(f"Show the waiting jobs of {flood.owner}", JOBS, query=f"?{query}")
        step = f"manage.py switchyard jobs list --state queued --queue {row.queue} --owner {shlex.quote(flood.owner)}"
        then = f"Ask {flood.owner} whether all of them are wanted; the list cancels those that are not. {then}"
    act, ratio, word = act or _holders_act(row), row.ratio or 0, BLOCKED if misplaced else FLOODED if flood else ""
    severity = _severity(ratio)
    return GROUP.finding(severity, "late", seen, then, step, row.queue, then=then, act=act, factor=ratio, word=word)


def _severity(ratio: float) -> Severity:
    return "error" if ratio >= BAD_RATIO else "warning"


def _cause(row: Row, queue: Queue, facts: YardFacts) -> tuple[str, str, str]:
    """Return why nothing starts in time, what happens then, and an actor that runs too long for the queue, or ""."""
    if not row.slots_known:
        return "its slots are unknown", "The server with the pools' reports does not answer.", ""
    if silent := silent_cause(row, facts):
        return silent, f"{HOLDS_UP}: Show stacks, on the page of workers, names its line.", ""
    if row.busy * 2 < row.slots:
        silent_ms = _silent_ms(queue, facts)
        if silent_ms >= SILENT_MS:
            return (
                f"its pool has not reported for {duration(silent_ms)} and starts nothing",
                "It is stopped, hangs, or cannot reach the broker: its own page and its log say more within seconds.",
                "",
            )
        return (
            "its free slots start nothing",
            "Most likely its workers have just started or cannot reach the broker: read the pool's log.",
            "",
        )
    busy = _busy_text(row)
    pools = {pool.name for pool in declared_yard().pools_of(queue.name)}
    jobs = [job for job in facts.running or () if job.holder.pool in pools]
    counts = Counter(job.actor for job in jobs)
    if not counts:
        return busy, "Which jobs hold them is not known yet: look at the pool first.", ""
    [(actor, held)] = counts.most_common(1)
    if held < MOST * row.slots:
        return f"{busy} ({holders_text(counts)})", _more_slots(row), ""
    longest_ms = max((job.ran_ms or 0 for job in jobs if job.actor == actor), default=0)
    of_slots = f"{held:,} × {actor} {'holds' if held == 1 else 'hold'} " + (
        "its only slot" if row.slots == 1 else f"all {row.slots:,} slots" if held >= row.slots else
        f"{held:,} of {row.slots:,} slots"
    )  # fmt: skip
    if queue.objective_ms is not None and longest_ms > TOO_LONG * queue.objective_ms and _others(queue, actor):
        ran = f"{of_slots}, the longest for {duration(longest_ms)}"
        then = (
            f"{actor} runs too long for a queue that promises a start in {whole_duration(queue.objective_ms)}: name "
            f"another queue in its `queue_name`, or move those that wait. Jobs that run go on."
        )
        return ran, then, actor
    return of_slots, _more_slots(row), ""


def _busy_text(row: Row) -> str:
    if row.busy >= row.slots:
        return "its only slot is busy" if row.slots == 1 else f"all {row.slots:,} slots are busy"
    return f"{row.busy:,} of {row.slots:,} slots {'is' if row.busy == 1 else 'are'} busy"


def _others(queue: Queue, actor: str) -> bool:
    """Return whether a queue has other actors, which one actor could be moved away from."""
    actors = dramatiq.get_broker().actors.values()
    return any(one.queue_name == queue.name and one.actor_name != actor for one in actors)


def _more_slots(row: Row) -> str:
    return (
        "It recovers when running jobs finish faster than new ones arrive. If it does not, give the pool of "
        f"{row.name} more slots in the topology, or move its slow actor to another queue."
    )


def _silent_ms(queue: Queue, facts: YardFacts) -> int:
    beats = [facts.state.pools[pool.name].beat_at for pool in declared_yard().pools_of(queue.name)]
    known = [beat for beat in beats if beat is not None]
    return now_ms() - max(known) if known else 0


def _just_late(row: Row) -> Finding:
    seen = (
        f"{row.name} is {times(row.ratio or 0)} behind its promise at this moment: "
        f"{jobs_text(row.waiting or 0)}, the oldest for {duration(row.oldest_age_ms or 0)}"
    )
    then = "A burst that is over in a second is no fault; it is called late when it stays so."
    step = f"manage.py switchyard queues show {row.queue}"
    return GROUP.finding("ok", "just_late", seen, then, step, row.queue, then=then, factor=row.ratio or 0)


def _ends_late(row: Row) -> Finding:
    seen = (
        f"{row.name} starts its jobs in time and ends them late: the oldest is {times(row.done_ratio or 0)} behind the "
        f"promise to end, {duration(row.unfinished_age_ms or 0)} after it was ready"
    )
    then = "What its tasks call is slow, or one of them hangs: its page shows what holds the slots."
    step, act, ratio = f"manage.py switchyard queues status {row.queue}", _holders_act(row), row.done_ratio or 0
    return GROUP.finding(_severity(ratio), "ends_late", seen, then, step, row.queue, then=then, act=act, factor=ratio)


def _holders_act(row: Row) -> Act:
    slots = "slot" if row.slots == 1 else counted(row.slots, "slot")
    return Act(f"Show who holds the {slots} of {row.name}", "switchyard-queue", row.queue, "#sy-holders")


def _move_act(row: Row, actor: str) -> Act | None:
    """Return the button that moves an actor's waiting jobs; ``None`` where none wait or too many to count."""
    try:
        [family] = families([row.queue])
        page = look_into(family, "live", "waiting", limit=COUNTED)
    except (ValueError, BrokerError):
        return None
    count = sum(one.message is not None and one.message.actor_name == actor for one in page.items)
    if not count:
        return None
    jobs = f"the waiting {actor}" if page.cursor is not None else f"{count:,} waiting {actor}"
    query = f"?{urlencode({'actor': actor})}"
    return Act(f"Move {jobs} to another queue…", "switchyard-queue-relocate", row.queue, query)
