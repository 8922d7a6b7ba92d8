"""Judgement of actors by their own past: slower than usual, silent although usually sent, due later than usual.

Rules and thresholds of *slower* were tuned in a simulation of 16 yards; each needs evidence that chance does not give.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Final

import dramatiq
from django.db import DatabaseError

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import facilities
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.yard_facts import (
    Counts,
    FactStore,
    actor_subject,
    failures,
    merged,
    queue_subject,
    sent,
    starts,
)
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration, whole_duration
from switchyard.history.models import JobRow
from switchyard.jobs.queries import running_or_none
from switchyard.operations.findings import spending
from switchyard.operations.findings.finding import Button, Finding, FindingGroup
from switchyard.operations.past import LAST_MS, PAST, Usual, due_later, slow_runs

GROUP = FindingGroup("queues")
# One job in a hundred may start later than promised. Windows of an hour and of 5 min spend it 14.4 times as fast.
MAY_BE_LATE, BURN_RATE, FAST_BUCKETS, LEAST_LATE = 0.01, 14.4, 30, 10
# One burst is not again and again, and in a young yard it is all of the hour. What is over for a minute is past.
LEAST_SPELLS, PRESENT_BUCKETS = 3, 6


def look_at_promises(
    store: FactStore, buckets: Sequence[tuple[int, Mapping[str, Counts]]], now_ms: int
) -> Iterator[Finding]:
    """Judge every queue with a promise; the hour is read only of one whose last 5 min are bad."""
    for queue in declared_yard().queues:
        promise_ms, subject = queue.objective_ms, queue_subject(queue.name)
        if promise_ms is None:
            continue
        fast, present = (
            merged(found.get(subject, {}) for _, found in buckets[-count:]) for count in (FAST_BUCKETS, PRESENT_BUCKETS)
        )
        if not burns(fast, promise_ms) or not late(present, promise_ms):
            continue
        # The newest minutes are not written yet: of them the buckets are read.
        first = -(-buckets[0][0] // facts.MINUTE_MS) * facts.MINUTE_MS
        newest = [(at, found.get(subject, {})) for at, found in buckets if at >= first]
        told = [*store.minutes(subject, now_ms - facts.HOUR_MS, first).items(), *newest]
        slow = merged(counts for _, counts in told)
        if not burns(slow, promise_ms) or spells(told, promise_ms) < LEAST_SPELLS:
            continue
        name, promised, count = queue.name, whole_duration(promise_ms), late(slow, promise_ms)
        of_hour = f"{count:,} of {starts(slow):,} jobs of the last hour started later than {promised}"
        then = "Its chart shows when: at a burst, at a schedule, or all the time."
        then += " Spread what is sent at once, or add slots."
        step, button = f"manage.py switchyard queues status {name}", Button(f"Show {name}", "switchyard-queue", name)
        seen, factor = f"{name} is late again and again: {of_hour}", float(count)
        yield GROUP.warning("burning", seen, "", step, name, then=then, button=button, factor=factor)


def late(counts: Counts, promise_ms: int) -> int:
    """Return the starts that were certainly later than promised: those of its own class may have been in time."""
    classes = (n for n in range(1, facts.CLASSES) if facts.LEAST_MS * 2 ** (n - 1) >= promise_ms)
    return sum(counts.get(facts.WAITS + n, 0) for n in classes)


def spells(told: Sequence[tuple[int, Counts]], promise_ms: int) -> int:
    """Return how many times late starts began: in minutes that follow one without any, by counts and their ms."""
    bad = {at // facts.MINUTE_MS for at, counts in told if late(counts, promise_ms)}
    return sum(minute - 1 not in bad for minute in bad)


def burns(counts: Counts, promise_ms: int) -> bool:
    """Return whether so many started late that the share which may be late is spent 14.4 times as fast."""
    count = late(counts, promise_ms)
    return count >= LEAST_LATE and count >= BURN_RATE * MAY_BE_LATE * starts(counts)


# Windows of *slower*, in buckets: 30 s to 10 min, the shortest that is clear.
WINDOWS: Final = (3, 6, 12, 30, 60)
# Buckets in which runs are slow still.
LASTS: Final = 4
# Runs that are looked at for whether it is over, and how likely as many in a row are by chance where it is not.
USUAL_AGAIN, CHANCE = 10, 0.1
# Slow runs, their share, the evidence in nats that they are not the usual eighth, and how much slower half of them are.
LEAST_SLOW, LEAST_SHARE, EVIDENCE, USUALLY_SLOW, SLOWER = 4, 0.4, 14.0, 0.12, 1.5
# A busy machine adds some milliseconds to each run.
LEAST_MORE_MS: Final = 20.0
# A producer is silent after 2 min, three times its longest pause of the hours before, and 20 sends that are missing.
SILENT_MS, PAUSES, MISSING = 2 * facts.MINUTE_MS, 3, 20
# Sends due so much later, from 16 min on, that one in twenty usually is: half of those of the last 2 min, at least 4.
LATER_FROM, LATER_SHARE, USUALLY_LATER, LEAST_LATER = 4, 0.5, 0.05, 4


def look() -> Iterator[Finding]:
    """Judge every actor of this code that ran or was sent lately, or usually is."""
    store = facilities().facts
    now = store.server_ms()
    usual = PAST.usual(now)
    buckets = store.recent(now)
    running = running_or_none() or []
    yield from spending.look(buckets, usual)
    yield from look_at_promises(store, buckets, now)
    known = (found for at, found in buckets if now - SILENT_MS <= at <= now - 2 * facts.BUCKET_MS)
    sampled = all(any(facts.DEPTH in counts for counts in found.values()) for found in known)
    for name, actor in sorted(dramatiq.get_broker().actors.items()):
        own = usual.get(actor_subject(name))
        if own is None:
            continue
        mine = [(at, found.get(actor_subject(name), {})) for at, found in buckets]
        yield from slower(name, actor.queue_name, own, mine, [job for job in running if job.actor == name], now)
        if sampled:
            yield from silent(name, actor.queue_name, own, mine, now)
            yield from later(name, actor.queue_name, own, mine)


def slower(
    actor: str, queue: str, usual: Usual, mine: Sequence[tuple[int, Counts]], running: Sequence[Job], now: int
) -> Iterator[Finding]:
    """Yield the finding for an actor whose runs take clearly longer than they usually do, by what runs now as well."""
    if usual.run_ms is None or usual.slow_ms is None:
        return
    over_ms = max(usual.slow_ms, SLOWER * usual.run_ms, usual.run_ms + LEAST_MORE_MS)
    going = [job.run_ms or 0 for job in running if (job.run_ms or 0) > over_ms]
    for length in WINDOWS:
        window = [counts for _, counts in mine[-length:]]
        counts = merged(window)
        slow, runs = slow_runs(counts, over_ms)
        if 2 * failures(counts) >= max(runs, 1):  # runs that fail say nothing of how long one takes: Failing is said
            return
        slow, runs = slow + len(going), runs + len(going)
        lasts = len(going) >= LEAST_SLOW or _lasts(window[-LASTS:], over_ms)
        if slow >= LEAST_SLOW and lasts and slow >= LEAST_SHARE * runs and evidence(slow, runs) >= EVIDENCE:
            if not going and usual_again(actor, over_ms, slow / runs, mine):
                return
            minutes = facilities().facts.minutes(actor_subject(actor), now - LAST_MS, mine[0][0] - facts.MINUTE_MS + 1)
            told = [*minutes.items(), *mine]
            since, first = _slow_since(told, over_ms, [now - ran_ms for ran_ms in going])
            slow, runs = slow_runs(merged(each for at, each in told if at >= first), over_ms)
            slow, runs = slow + len(going), runs + len(going)
            if slow >= LEAST_SLOW:
                ran, ran_ms = _takes(counts, usual.run_ms, over_ms, going)
                word, goes, at = spending.goes_to(actor, usual, counts)
                usually, clock = f"{duration(usual.run_ms)} {usual.basis}", f"{datetime_of(since):%H:%M:%S} UTC"
                of_runs = f"{slow:,} of {counted(runs, 'run')}{goes}"
                seen = f"{actor} {ran}, usually {usually}, since {clock}: {of_runs}"
                then = f"Look at {at}, and at what was released before {clock}. More slots would wait as well."
                times = ran_ms / max(usual.run_ms, 1)
                yield spending.of_actors("slower", {actor: queue}, seen, then, times, word)
            return


def _takes(counts: Counts, usual_ms: float, over_ms: float, going: Sequence[int]) -> tuple[str, float]:
    """Return how long slow runs take, as words and in ms: the mean of those that ended, or what others have run so far.

    The others that ended took as long as usual: what is left of the time is that of the slow ones.
    """
    slow, runs = slow_runs(counts, over_ms)
    slow_ms = (counts.get(facts.RUN_MS, 0) - (runs - slow) * usual_ms) / slow if slow else 0.0
    so_far_ms = sorted(going)[len(going) // 2] if going else 0.0
    if slow_ms >= so_far_ms:
        return f"takes {duration(slow_ms)}", slow_ms
    return f"has run for {duration(so_far_ms)} and goes on", so_far_ms


def _lasts(newest: Sequence[Counts], over_ms: float) -> bool:
    """Return whether runs are slow still: in two buckets of the newest, and as many of all as it takes."""
    slow, runs = slow_runs(merged(newest), over_ms)
    return slow >= LEAST_SHARE * runs and sum(slow_runs(each, over_ms)[0] > 0 for each in newest) >= 2


def usual_again(actor: str, over_ms: float, share: float, mine: Sequence[tuple[int, Counts]]) -> bool:
    """Return whether so many of the newest runs took as long as usual that it is no chance by the slow runs' share."""
    last = max(at for at, counts in mine if slow_runs(counts, over_ms)[0])  # runs are counted some seconds later
    rows = JobRow.objects.filter(actor=actor, state="succeeded", finished_at__gte=last - facts.BUCKET_MS)
    try:
        ran = list(rows.order_by("-finished_at", "-id").values_list("run_ms", flat=True)[:USUAL_AGAIN])
    except DatabaseError:
        return False
    quick = len(list(takewhile(lambda ms: (ms or 0) <= over_ms, ran)))
    return quick > 1 and (1 - share) ** quick <= CHANCE


def evidence(slow: int, runs: int) -> float:
    """Return how surprising a share is where another one is usual, in nats; 0 where it is no larger."""
    share = slow / runs if runs else 0.0
    if share <= USUALLY_SLOW:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - USUALLY_SLOW)) if share < 1 else 0.0
    return runs * (share * math.log(share / USUALLY_SLOW) + rest)


def _slow_since(mine: Sequence[tuple[int, Counts]], over_ms: float, began: Sequence[int]) -> tuple[int, int]:
    """Return since when most runs are slow, back to those of which most were not, and where these runs are counted."""
    since, first = min(began, default=0), mine[-1][0]
    for at, counts in reversed(mine):  # minutes, or buckets
        slow, runs = slow_runs(counts, over_ms)
        if runs and slow >= LEAST_SHARE * runs:  # a run began before it ended
            since, first = min(since or at, at - counts.get(facts.RUN_MS, 0) // runs), at
        elif runs and since:
            break
    return since, first


def silent(actor: str, queue: str, usual: Usual, mine: Sequence[tuple[int, Counts]], now: int) -> Iterator[Finding]:
    """Yield the finding for an actor that nothing sends any more, although it usually is sent all the time."""
    rate = usual.sent_a_minute or 0.0
    last = max((at + facts.BUCKET_MS for at, counts in mine if sent(counts)), default=None)
    recent_ms = now - mine[0][0] if mine else 0
    silent_ms = recent_ms if last is None else now - last
    if silent_ms < SILENT_MS or rate * silent_ms / facts.MINUTE_MS < MISSING:
        return
    minutes = facilities().facts.minutes(actor_subject(actor), now - LAST_MS, now)
    sends = [at for at, counts in minutes.items() if sent(counts)]
    if not sends:  # not in the hours before: it may be night, or a holiday
        return
    pauses = [after - before - facts.MINUTE_MS for before, after in pairwise(sends)]
    if silent_ms < PAUSES * max(pauses, default=0):
        return
    since = last if last is not None else sends[-1] + facts.MINUTE_MS
    usually, clock = f"{rate:,.0f}/min {usual.basis}", f"{datetime_of(since):%H:%M:%S} UTC"
    seen = f"nothing sends {actor}: 0 in {duration(now - since)}, usually {usually}, since {clock}"
    then = f"Look at what sends {actor}: a page, a schedule or another actor that fails. Workers are not the cause."
    yield spending.of_actors("silent", {actor: queue}, seen, then, rate * silent_ms / facts.MINUTE_MS)


def later(actor: str, queue: str, usual: Usual, mine: Sequence[tuple[int, Counts]]) -> Iterator[Finding]:
    """Yield the finding for an actor whose jobs are sent for much later than they usually are."""
    window = merged(counts for at, counts in mine[-12:])
    for n in range(len(usual.later) - 1, LATER_FROM - 1, -1):
        count = due_later(window, n)
        if count >= max(LEAST_LATER, LATER_SHARE * sent(window)) and usual.later[n] <= USUALLY_LATER:
            usually = next((m for m in range(facts.LATER_CLASSES - 1, -1, -1) if usual.later[m] >= LATER_SHARE), None)
            as_usual = "at once" if usually is None else f"in about {duration(2**usually * facts.MINUTE_MS)}"
            late = duration(2**n * facts.MINUTE_MS)
            of_sends = f"{count:,} of {counted(sent(window), 'send')} in the last 2 min"
            seen = f"{actor} is sent for {late} from now or later, usually {as_usual} {usual.basis}: {of_sends}"
            then = "Look at the delay that its sender gives. A job that waits can be made due on its page."
            yield spending.of_actors("later", {actor: queue}, seen, then, float(count))
            return
