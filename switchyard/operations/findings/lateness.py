"""Queues that are late against their own promises, and the actors that hold their slots."""

import math
import shlex
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlencode

import dramatiq
from django.utils.text import get_text_list

from switchyard.broker.admin.browse import look as look_into
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.yard_facts import HOUR_MS, RUNS, actor_subject, ends, merged, percentile_ms
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import counted, duration, jobs_text, most_common, times, whole_duration
from switchyard.jobs.queries import families
from switchyard.operations.findings.actors import AllFailing, failures_list
from switchyard.operations.findings.facts import Flood, YardFacts, flood_of, holding
from switchyard.operations.findings.finding import Button, Finding, FindingGroup, Severity, jobs_button
from switchyard.operations.findings.pools import HOLDS_UP, silent_cause
from switchyard.operations.findings.spending import dependency_of
from switchyard.operations.past import median_ms
from switchyard.operations.queries import lately
from switchyard.operations.rows import BAD_RATIO, Row

GROUP = FindingGroup("queues")
# A shorter wait in one sample may be a message that is being fetched: it has to be late in most of the last samples.
SEEN_MS = 1_000
SAMPLES, LATE_SAMPLES, SAMPLES_S = 3, 2, 20.0
# Waiting messages of which those of one actor are counted.
COUNTED = 500
# Share of the slots from which one actor is the cause; below the second, slots are free, and hold up nothing.
MOST, FREE = 0.5, 0.75
# Starts beside arrivals of a queue that is told to become empty: two readings differ by a few jobs.
CLEARLY = 1.1
# A queue that starts so many times what arrives, and is empty so soon, works off what waited while nothing started.
WORKS_OFF, SOON_MS = 2, 30_000
# A supervisor reports every 2 s.
SILENT_MS = 6_000
# Runs of a second or more are not of the actor's length if half of them take five times as long as half of 20 before,
# or as all before where they are fewer; one that does may be the rare long one.
UNUSUAL_MS, UNUSUAL, LEAST_ENDED, DAY_MS = 1_000, 5, 20, 24 * HOUR_MS
SLOTS_WAIT = "More slots would wait as well, and so would another queue's."
# Words for a late queue, in the yard and above the sentence, where its cause is known; "Late" where it is not.
BLOCKED, FLOODED, HANGS, FAILING, CATCHING_UP = "Blocked", "Flooded", "Hangs", "Failing", "Catching up"
LATE_WORDS = ("Late", BLOCKED, FLOODED, HANGS, FAILING)


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
        with self._lock:
            self._samples.clear()


SAMPLED = LateSamples()


def look(facts: YardFacts) -> Iterator[Finding]:
    """Judge every queue against its own promise."""
    late = [row for row in facts.queue_rows if row.state.word == "Late" and (row.ratio or 0) > 1]
    lasting = SAMPLED.note(row.queue for row in late)
    failing: dict[str, list[Row]] = {}  # queues by the host, or the error, that is their cause
    for row in late:
        over_ms = (row.oldest_age_ms or 0) - (declared_yard().queue_of(row.queue).objective_ms or 0)
        if row.queue not in lasting and over_ms < SEEN_MS:
            yield _just_late(row)
        elif found := failing_holders(row, facts):
            first = next(iter(found.values()))
            failing.setdefault(first.host or first.exception, []).append(row)
        else:
            yield _late(row, facts)
    for rows in failing.values():
        yield _all_failing(rows, facts)
    for row in facts.queue_rows:
        if row.state.word == "Late" and (row.ratio or 0) <= 1:
            yield _ends_late(row)


def none_late() -> str:
    """Return the sentence about queues of which none is late. Not every server knows how long a message has waited."""
    place = switchyard_settings().place
    if place is not None and not place.tells_ages:
        return f"Whether a queue is late is not known, as {place.title} tells no ages"
    return "Every queue is on time"


def late_cause(row: Row, facts: YardFacts) -> tuple[str, Flood | None]:
    """Return the actor that runs too long for a late queue and holds most of its slots, or "", and what floods it."""
    misplaced = _cause(row, declared_yard().queue_of(row.queue), facts, flood := flood_of(row))[2]
    return misplaced, None if misplaced else flood


def failing_holders(row: Row, facts: YardFacts) -> dict[str, AllFailing]:
    """Return the actors of which nearly all jobs fail, most slots first, where they hold most slots of a late queue."""
    counts = Counter(job.actor for job in holding(row, facts.running or ()) if job.actor in facts.failing)
    if counts.total() < MOST * max(row.slots, 1):
        return {}
    return {actor: facts.failing[actor] for actor, _ in counts.most_common()}


def failing_word(failing: Iterable[AllFailing]) -> str:
    """Return the word for a late queue whose slots are held by jobs that fail: they wait for an answer, or do not."""
    return HANGS if all(each.slow for each in failing) else FAILING


def _all_failing(rows: Sequence[Row], facts: YardFacts) -> Finding:
    """Return the finding for actors of which nearly all jobs fail, and for the queues that are late by them."""
    first, *others = sorted(rows, key=lambda row: -(row.ratio or 0))
    found = {actor: fails for row in (first, *others) for actor, fails in failing_holders(row, facts).items()}
    fails, actors, s = list(found.values()), get_text_list(list(found), "and"), "s" if len(found) == 1 else ""
    failed, jobs = sum(each.failed for each in fails), sum(each.jobs for each in fails)
    host, *further = dict.fromkeys(each.host for each in fails)
    what, called = f"{actors} fail{s}", f"what {actors} call{s}"
    if host and not further:
        what, called = f"{host} is down for {actors}{f' ({fails[0].fact})' if fails[0].fact else ''}", host
    elif fails[0].kind is not None:
        what = f"{what}, because {fails[0].kind.because}"
    elif failing_word(fails) == HANGS:
        what = f"{called} does not answer"
    span = duration(max(now_ms() - min(each.since for each in fails), 0))
    share = f"{'all' if failed == jobs else f'{failed:,}'} of {'its' if s else 'their'} {counted(jobs, 'job')}"
    errors = get_text_list(list(dict.fromkeys(each.exception for each in fails)), "and")
    late = f"{get_text_list([row.name for row in (first, *others)], 'and')} {'are' if others else 'is'}"
    seen = f"{what}: {share} in {span} failed with {errors}; {late} late by it"
    kind = fails[0].kind
    remove = kind.then if kind is not None else f"Look at {called}: mend it, and what waits starts."
    then = f"{remove} Jobs with retries left are tried again by themselves."
    actor, ratio = next(iter(found)), first.ratio or 0
    button, step = failures_list(actor, f"Show the failed jobs of {actor}")
    return GROUP.finding(
        _severity(ratio), "all_failing", seen, "", step, first.queue, then=then, button=button, factor=ratio,
        word=failing_word(fails), also=tuple(row.queue for row in others),
    )  # fmt: skip


def _late(row: Row, facts: YardFacts) -> Finding:
    queue = declared_yard().queue_of(row.queue)
    cause, then, misplaced = _cause(row, queue, facts, flood := flood_of(row))
    flood = None if misplaced else flood
    works_off = _left_ms(row, WORKS_OFF) < SOON_MS or (row.busy < FREE * row.slots and _empty_in(row) != "")
    known = misplaced or flood or any(words in cause + then for words in ("nothing", HOLDS_UP, SLOTS_WAIT))
    if catches_up := works_off and not known:
        cause, then = "it works off what has waited", "It is on time then, by itself: nothing needs to be done."
    share = f"{flood.text}, " if flood is not None and not flood.sends_itself else ""
    oldest = f"{share}the oldest for {duration(row.oldest_age_ms or 0)}{_empty_in(row)}"
    because = f"{row.name} is {times(row.ratio or 0)} behind its promise, because {cause}"
    seen = f"{because}; {jobs_text(row.waiting or 0)}, {oldest}"
    button, step = _way_out(row, queue, facts, misplaced)
    if flood is not None and flood.actor:
        button, step, then = _pause(flood)
    elif flood is not None:
        label = f"Show the waiting jobs of {flood.owner}"
        button = jobs_button(label, state="queued", queue=row.queue, owner=flood.owner)
        step = f"manage.py switchyard jobs list --state queued --queue {row.queue} --owner {shlex.quote(flood.owner)}"
        then = f"Ask {flood.owner} whether all of them are wanted; the list cancels those that are not. {then}"
    button, ratio = button or _holders_button(row), row.ratio or 0
    word = BLOCKED if misplaced else FLOODED if flood else CATCHING_UP if catches_up else ""
    severity: Severity = "warning" if catches_up else _severity(ratio)
    return GROUP.finding(severity, "late", seen, "", step, row.queue, then=then, button=button, factor=ratio, word=word)


def _severity(ratio: float) -> Severity:
    return "error" if ratio >= BAD_RATIO else "warning"


def _cause(row: Row, queue: Queue, facts: YardFacts, flood: Flood | None) -> tuple[str, str, str]:
    """Return why nothing starts in time, what happens then, and an actor that runs too long for the queue, or ""."""
    if not row.slots_known:
        return "its slots are unknown", "The server with the pools' reports does not answer.", ""
    if silent := silent_cause(row, facts):
        return silent, f"{HOLDS_UP}: Show stacks, on the page of workers, names its line.", ""
    if row.busy < FREE * row.slots:
        beats = (facts.state.pools[pool.name].beat_at for pool in declared_yard().pools_of(queue.name))
        silent_ms = now_ms() - max((beat for beat in beats if beat is not None), default=now_ms())
        if silent_ms >= SILENT_MS and facts.state.returned_s is None:
            then = "It is stopped, hangs, or cannot reach the broker: its own page and its log say more within seconds."
            return f"its pool has not reported for {duration(silent_ms)} and starts nothing", then, ""
        if (rates := lately(row.queue)) is None or rates.starts:
            then = "If it stays so, the broker answers its workers slowly, or its jobs are very short."
            starts = f"it starts {rates.starts:,.3g} a second beside" if rates else "no start was seen yet in its"
            return f"{starts} free slots", then, ""
        then = "Its workers have just started, cannot reach the broker, or a call holds them up: read the pool's log."
        return "its free slots start nothing", then, ""
    if flood is not None and flood.sends_itself:
        rates = lately(row.queue)
        arrive = "" if rates is None else f", {rates.arrivals:,.0f} arrive a second"
        return f"{flood.text}{arrive}", "", ""
    busy = f"{row.busy:,} of {row.slots:,} slots {'is' if row.busy == 1 else 'are'} busy"
    if row.busy >= row.slots:
        busy = "its only slot is busy" if row.slots == 1 else f"all {row.slots:,} slots are busy"
    jobs = holding(row, facts.running or ())
    counts = Counter(job.actor for job in jobs)
    if not counts:
        return busy, "Which jobs hold them is not known yet: look at the pool first.", ""
    [(actor, held)] = counts.most_common(1)
    if held < MOST * row.slots:
        return f"{busy} ({most_common(counts)})", _more_slots(row), ""
    longest_ms = _longest_ms(jobs, actor)
    of_slots = f"{held:,} × {actor} {'holds' if held == 1 else 'hold'} " + (
        "its only slot" if row.slots == 1 else f"all {row.slots:,} slots" if held >= row.slots else
        f"{held:,} of {row.slots:,} slots"
    )  # fmt: skip
    if usual := _usually(actor, jobs):
        longest = f"the longest for {duration(longest_ms)}, while {usual}"
        then = f"What {actor} calls is slow, or it hangs: look there first. {SLOTS_WAIT}"
        return f"{of_slots}, {longest}", then, ""
    # Slots that are held by runs of some length at random moments free one after that divided by slots + 1.
    fits_ms = (row.slots + 1) * (queue.objective_ms or 0)
    if queue.objective_ms is not None and longest_ms > fits_ms and _others(queue, actor):
        ran = f"{of_slots}, the longest for {duration(longest_ms)}"
        then = f"{actor} runs too long for a queue that promises a start in {whole_duration(queue.objective_ms)}"
        if (slower := slower_queue(queue, longest_ms, row.slots)) is not None:
            then += f": write {slower.name} as its `queue_name`, and move those that wait. Jobs that run go on."
        else:
            then += f", and no slower queue has the slots for it: pause {actor}, and others start. Then declare one."
        return ran, then, actor
    called = dependency_of(actor) or (f"what {actor} calls" if _usually(actor, jobs, one=True) else "")
    slow = f"Look at {called} first: if it answers slowly, more slots would call it more often. " if called else ""
    return of_slots, f"{slow}{_more_slots(row)}", ""


def _usually(actor: str, running: Sequence[Job], *, one: bool = False) -> str:
    """Return how long an actor's runs of the last 15 minutes took, or where none ended then, those of the last day, if
    half of those that run now, or ``one`` of them, take clearly longer; "" where not, or where nothing has ended.
    """
    mine = sorted(job.run_ms or 0 for job in running if job.actor == actor)
    if (now_run_ms := mine[-1 if one else len(mine) // 2]) < UNUSUAL_MS:
        return ""
    store, subject = facilities().facts, actor_subject(actor)
    try:
        now = store.server_ms()
        counts = merged([found.get(subject, {}) for _, found in store.recent(now)])
        if not ends(counts):
            counts = merged(store.minutes(subject, now - DAY_MS, now).values())
    except BrokerError:
        return ""
    many = ends(counts) >= LEAST_ENDED
    usually_ms = median_ms(counts, RUNS) if many else percentile_ms(counts, RUNS, 1.0)
    if usually_ms is None or now_run_ms < UNUSUAL * usually_ms:
        return ""
    return f"{'half of those before took' if many else 'none before took over'} {duration(usually_ms)}"


def slower_queue(queue: Queue, longest_ms: int, least_slots: int = 0) -> Queue | None:
    """Return the queue to which an actor with runs of this length belongs: of those that promise a start later, the
    first whose promise is longer than the run, else the last; ``None`` where none is, or the hard limits are shorter,
    or none has so many slots, and as many as what arrives in the queue would keep busy.
    """
    rates, yard = lately(queue.name), declared_yard()
    load = rates.arrivals * longest_ms / 1_000 if rates else 0.0

    def promised(one: Queue) -> float:
        return math.inf if one.objective_ms is None else one.objective_ms

    later = [
        one
        for one in sorted(yard.queues, key=promised)
        if promised(one) > promised(queue)
        and one.hard_limit_ms > longest_ms
        and sum(pool.total_slots for pool in yard.pools_of(one.name)) >= max(least_slots, load)
    ]
    return next((one for one in later if promised(one) > longest_ms), later[-1] if later else None)


def _longest_ms(jobs: Iterable[Job], actor: str) -> int:
    return max((job.run_ms or 0 for job in jobs if job.actor == actor), default=0)


def _pause(flood: Flood) -> tuple[Button, str, str]:
    """Return the button, the command and the words for the pause that ends a flood."""
    actor, of, step = flood.actor, "switchyard-actor-pause", f"manage.py switchyard actors pause {flood.actor}"
    if flood.sends_itself:
        cancel = f"manage.py switchyard jobs cancel --filter actor={actor}"
        then = f"If that is not wanted, pause {actor}, then cancel what waits of it: `{cancel}`. What runs goes on."
        return Button(f"Pause {actor}…", of, actor), step, then
    label, query = f"Pause {actor} for {flood.argument}", urlencode({"argument": flood.argument})
    then = f"{label}, and the others start at once; what is held back starts when you resume it, if it is wanted."
    return Button(f"{label}…", of, actor, f"?{query}"), f"{step} --argument {shlex.quote(flood.argument)}", then


def _empty_in(row: Row) -> str:
    """Return when a queue is empty, where clearly more starts than arrives: ``; empty in about 1 min 10 s``."""
    left_ms = _left_ms(row, CLEARLY)
    return f"; empty in about {duration(left_ms)}" if math.isfinite(left_ms) else ""


def _left_ms(row: Row, factor: float) -> float:
    """Return in how many ms a queue is empty; infinity unless so many times of what arrives is started.

    Long runs end in waves: of fewer starts than those of two waves it is not known.
    """
    rates = lately(row.queue)
    if rates is None or rates.starts <= factor * rates.arrivals or rates.starts * rates.seconds < 2 * row.busy:
        return math.inf
    return (row.waiting or 0) / (rates.starts - rates.arrivals) * 1_000


def _others(queue: Queue, actor: str) -> bool:
    """Return whether a queue has other actors, which one actor could be moved away from."""
    actors = dramatiq.get_broker().actors.values()
    return any(one.queue_name == queue.name and one.actor_name != actor for one in actors)


def _more_slots(row: Row) -> str:
    return (
        "It recovers when running jobs finish faster than new ones arrive. If it does not, give the pool of "
        f"{row.name} more slots in the topology, or move its slow actor to another queue."
    )


def _just_late(row: Row) -> Finding:
    waits = f"{jobs_text(row.waiting or 0)}, the oldest for {duration(row.oldest_age_ms or 0)}"
    seen = f"{row.name} is {times(row.ratio or 0)} behind its promise at this moment: {waits}"
    then = "A burst that is over in a second is no fault; it is called late when it stays so."
    step = f"manage.py switchyard jobs list --queue {row.queue} --state queued"
    return GROUP.finding("ok", "just_late", seen, "", step, row.queue, then=then, factor=row.ratio or 0)


def _ends_late(row: Row) -> Finding:
    ratio, age = row.done_ratio or 0, duration(row.unfinished_age_ms or 0)
    behind = f"the oldest is {times(ratio)} behind the promise to end, {age} after it was ready"
    seen = f"{row.name} ends its jobs late: {behind}; what waits now is in time"
    then = "What its tasks call is slow, or one of them hangs: its page shows what holds the slots."
    step, button, severity = f"manage.py switchyard queues status {row.queue}", _holders_button(row), _severity(ratio)
    return GROUP.finding(severity, "ends_late", seen, "", step, row.queue, then=then, button=button, factor=ratio)


def _holders_button(row: Row) -> Button:
    slots = "slot" if row.slots == 1 else counted(row.slots, "slot")
    return Button(f"Show who holds the {slots} of {row.name}", "switchyard-queue", row.queue, "#sy-holders")


def _way_out(row: Row, queue: Queue, facts: YardFacts, actor: str) -> tuple[Button | None, str]:
    """Return the button and the command that free a queue of an actor which runs too long for it.

    What waits of it moves to a queue that is slow enough. In any other it would run into a hard limit, or hold up more
    urgent work: without one the actor is paused. There is no button where none of it waits, or too many to count.
    """
    step = f"manage.py switchyard queues status {row.queue}"
    if not actor:
        return None, step
    try:
        [family] = families([row.queue])
        page = look_into(family, "live", "waiting", limit=COUNTED)
    except (ValueError, BrokerError):
        return None, step
    count = sum((message := one.message) is not None and message.actor_name == actor for one in page.items)
    if not count:
        return None, step
    slower = slower_queue(queue, _longest_ms(holding(row, facts.running or ()), actor), row.slots)
    if slower is None:
        step = f"manage.py switchyard actors pause {actor}"
        return Button(f"Pause {actor}…", "switchyard-actor-pause", actor), step
    jobs = f"the waiting {actor}" if page.cursor is not None else f"{count:,} waiting {actor}"
    query = f"?{urlencode({'actor': actor, 'to': slower.name})}"
    step = f"manage.py switchyard queues relocate {actor} --from {row.queue} --to {slower.name}"
    return Button(f"Move {jobs} to another queue…", "switchyard-queue-relocate", row.queue, query), step
