"""Work that is held back: by a person's pause or purge, by a limit of its actor, or by retries."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from switchyard.broker.admin.purge import purges
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.shapes import QueuePause
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration
from switchyard.jobs.running import answering_families
from switchyard.operations.findings.facts import HeldGroup, YardFacts
from switchyard.operations.findings.finding import Act, Finding, FindingGroup
from switchyard.operations.rows import Row

GROUP = FindingGroup("queues")
# A limit is told when its last message starts after so long, or after half of the queue's promise.
HELD_LONG_MS = 60_000
FEW = 3
# Fewer concurrent retries of one queue are normal: retries wait for hours, and one endpoint that is away holds dozens.
MANY_RETRIES = 100
JOBS = "switchyard-jobs"


def look(facts: YardFacts) -> Iterator[Finding]:
    """Judge pauses, limits and retries."""
    pauses = {stats.queue: stats.pause or QueuePause() for stats in facts.state.queues if stats.paused}
    for row in facts.queue_rows:
        if row.queue in pauses:
            yield _paused(row, pauses[row.queue])
        for group in facts.held.get(row.queue, ()):
            if is_long(row.queue, group):
                yield _limited(row.queue, group)
    for stats in facts.state.queues:
        if (count := stats.retry.total) >= MANY_RETRIES:
            yield _retrying(stats.queue, count)


def is_long(queue: str, group: HeldGroup) -> bool:
    """Return whether a limit holds messages back for longer than a person should find out by themselves."""
    least_ms = max(HELD_LONG_MS, (declared_yard().queue_of(queue).objective_ms or 0) / 2)
    return group.by_limit and group.count >= FEW and _until_ms(group) > least_ms


def limited_text(group: HeldGroup) -> str:
    """Return how many wait for their turn, and for how long the last."""
    count = f"{group.count:,} or more" if group.more else f"{group.count:,}"
    return f"{count} {group.actor} wait for their turn, the last for {duration(_until_ms(group))}"


def look_at_purges() -> Iterator[Finding]:
    """Report purges whose messages can still be put back.

    Raises:
        BrokerError: the broker does not answer.
    """
    for family in answering_families():
        for purge in purges(family):
            if purge.claim:
                continue
            queue = family.keys.queue
            jobs = counted(purge.count, "job")
            they = "it" if purge.count == 1 else "they"
            reason = f" ({purge.reason})" if purge.reason else ""
            left = duration(max(purge.until - now_ms(), 0))
            seen = f"{purge.by or 'an operator'} purged {jobs} of {queue}{reason}; {they} can be put back for {left}"
            then = f"After that {'it is' if purge.count == 1 else 'they are'} dropped for good."
            act = Act(f"Put back {jobs} of {queue}…", "switchyard-queue", queue)
            step = f"manage.py switchyard queues purge {queue} --undo"
            yield GROUP.finding("warning", "purged", seen, then, step, queue, then=then, act=act)


def _until_ms(group: HeldGroup) -> int:
    return max(int(group.last.timestamp() * 1_000) - now_ms(), 0)


def _limited(queue: str, group: HeldGroup) -> Finding:
    seen = f"{limited_text(group)}: its {group.reason}, holds them back"
    then = (
        f"They start one by one without you, the last at {group.last:%H:%M:%S} UTC. To be faster, raise the limit of "
        f"{group.actor}."
    )
    count = f"{group.count:,}" if not group.more else "the"
    query = urlencode({"state": "scheduled", "queue": queue, "actor": group.actor})
    act = Act(f"Show {count} held {group.actor}", JOBS, query=f"?{query}")
    step, factor = f"manage.py switchyard queues show {queue} --place scheduled", float(_until_ms(group))
    return GROUP.finding("warning", "limited", seen, then, step, queue, then=then, act=act, factor=factor)


def _paused(row: Row, pause: QueuePause) -> Finding:
    waiting = row.waiting or 0
    jobs = f"{counted(waiting, 'job')} wait{'s' if waiting == 1 else ''}" if waiting else "nothing waits yet"
    since = f" {duration(max(now_ms() - pause.since, 0))} ago" if pause.since else ""
    reason = f" ({pause.reason})" if pause.reason else ""
    until = f" until {datetime_of(pause.until):%Y-%m-%d %H:%M} UTC" if pause.until else ""
    seen = f"{row.name} starts nothing, because {pause.by or 'an operator'} paused it{since}{until}{reason}; {jobs}"
    then = (
        f"It resumes by itself at {datetime_of(pause.until):%H:%M:%S} UTC, or now on the next page."
        if pause.until
        else "It stays paused until a person resumes it; then what waits starts as fast as its slots take it."
    )
    label = f"Resume {row.name} and start {counted(waiting, 'job')}…" if waiting else f"Resume {row.name}…"
    act = Act(label, "switchyard-queue-resume", row.queue)
    cause = f"{pause.by or 'An operator'} paused it" + (f": {pause.reason}" if pause.reason else ", without a reason")
    step, factor = f"manage.py switchyard queues resume {row.name}", float(waiting)
    return GROUP.finding("warning", "paused", seen, cause, step, row.queue, then=then, act=act, factor=factor)


def _retrying(queue: str, count: int) -> Finding:
    seen = f"{count:,} failed jobs of {queue} wait for a retry"
    cause = "One common cause, such as a service that is down; nothing is lost until their retries are exhausted"
    step = f"manage.py switchyard queues show {queue} --lane retry --place scheduled"
    then = "Remove the cause and they finish by themselves; until then nothing is lost."
    query = urlencode({"state": "retrying", "queue": queue})
    act = Act(f"Show {count:,} retrying jobs of {queue}", JOBS, query=f"?{query}")
    return GROUP.finding("warning", "retrying", seen, cause, step, queue, then=then, act=act, factor=float(count))
