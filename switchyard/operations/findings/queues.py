"""Checks of queues: expired leases, messages that crash their worker, and messages that no worker can run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from urllib.parse import urlencode

from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import counted, duration
from switchyard.operations.findings.finding import LOOK_AT_WORKERS, Act, Finding, FindingGroup
from switchyard.operations.findings.snapshot import QueueFacts, Snapshot, undeclared_queues

GROUP = FindingGroup("queues")
# Expired leases are reclaimed every 2 s; older ones mean that no process reclaims them.
RECLAIMED_S = 6.0
MANY_CRASHES = 2
SHOWN = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Check every queue."""
    for queue in declared_yard().queues:
        if queue.name in snapshot.queues:
            state = snapshot.queues[queue.name]
            yield from _expired(queue, state)
            yield from _failing(queue, state)
            yield from _set_aside(queue, state)


def on_time(snapshot: Snapshot) -> Finding:
    """Return the finding for queues without a defect."""
    place = switchyard_settings().place
    if place is not None and not place.tells_ages:
        seen = f"{counted(len(snapshot.queues), 'queue')} on {place.title}, which tells no ages: lateness is not known"
        return GROUP.ok(f"{seen}; `manage.py switchyard queues` counts what waits")
    waiting = sum(queue.stats.live.waiting + queue.stats.retry.waiting for queue in snapshot.queues.values())
    waits = f"{counted(waiting, 'message')} {'waits' if waiting == 1 else 'wait'}"
    return GROUP.ok(f"{counted(len(snapshot.queues), 'queue')}, {waits}, all on time")


def _expired(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    old = {owner: since_s for owner, since_s in state.expired.items() if since_s > RECLAIMED_S}
    if not old:
        return
    since = duration(max(old.values()) * 1000)
    leases, messages = counted(len(old), "lease"), counted(state.expired_messages, "message")
    seen = f"{queue.name}: {leases} with {messages} expired, {'' if len(old) == 1 else 'the first '}{since} ago"
    cause = "Its host is gone, and no pool of this queue runs that would reclaim its messages"
    pools = declared_yard().pools_of(queue.name)
    step = f"manage.py switchyard runpool {pools[0].name}" if pools else "Give the queue a pool in the topology"
    yield GROUP.error("lapsed", seen, cause, step, queue.name, LOOK_AT_WORKERS)


def _failing(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    crashed = {id_: count for id_, count in state.crashed.items() if count >= MANY_CRASHES}
    if crashed:
        first = list(crashed)[:SHOWN]
        named = ", ".join(f"{state.actors[id_]}, {id_}" if id_ in state.actors else id_ for id_ in first)
        messages = counted(len(crashed), "message")
        their = "its" if len(crashed) == 1 else "their"
        seen = f"{queue.name}: {messages} crashed {their} worker {MANY_CRASHES} times or more ({named})"
        cause = "A task crashes its process; after the third time its message becomes a dead letter `poison`"
        worst = first[0]
        step = f"manage.py switchyard jobs show {shlex.quote(worst)}"  # ids are user input
        yield GROUP.warning("crashing", seen, cause, step, queue.name, _job_act(worst, state))
    if state.lapses:
        most = max(state.lapses, key=lambda id_: state.lapses[id_])
        named = ", ".join(sorted(state.lapses)[:SHOWN])
        count = len(state.lapses)
        run = "runs" if count == 1 else "run"
        seen = f"{queue.name}: {counted(count, 'message')} ran when a whole pool ended, and {run} alone ({named})"
        cause = "A container or a machine was killed"
        if times := state.lapses[most]:
            cause = (
                f"A container was killed {counted(times, 'time')} while {most} ran alone in it, perhaps for its "
                "memory; after the fifth time it becomes a dead letter `suspected_poison`"
            )
        step = f"manage.py switchyard jobs show {shlex.quote(most)}"
        yield GROUP.warning("suspects", seen, cause, step, queue.name, _job_act(most, state))


def _job_act(id_: str, state: QueueFacts) -> Act | None:
    """Return the button that leads to a job; ``None`` for an id that no URL can have."""
    of = f" of {state.actors[id_]}" if id_ in state.actors else ""
    return Act(f"Show the job{of}", "switchyard-job", id_) if "/" not in id_ else None


def _set_aside(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    stats = state.stats
    if stats.quarantined:
        messages = counted(stats.quarantined, "unreadable message")
        seen = f"{queue.name}: {messages} {'is' if stats.quarantined == 1 else 'are'} quarantined"
        cause = "Another program writes to the queue, or the server evicted message bodies"
        step = f"manage.py switchyard deadletters list --quarantined --queue {queue.name}"
        act = Act(f"Show {messages}", "switchyard-quarantine")
        yield GROUP.warning("quarantined", seen, cause, step, queue.name, act)
    if stats.parked:
        actors = ", ".join(state.unknown[:SHOWN]) or "?"
        one = stats.parked == 1
        messages = counted(stats.parked, "message")
        waits, calls = ("waits", "run it; it calls") if one else ("wait", "run them; they call")
        seen = f"{queue.name}: {messages} {waits} for a worker that can {calls} {actors}"
        cause = (
            "A deploy is under way, or senders were deployed before workers; after ten minutes they become dead letters"
        )
        step = (
            "manage.py switchyard check_backlog, with the code that the pools run; then deploy code that declares the "
            "actors, in actors.py of an installed app"
        )
        yield GROUP.warning("parked", seen, cause, step, queue.name, _parked_act(queue, state))


def _parked_act(queue: Queue, state: QueueFacts) -> Act:
    """Return the button that leads to the parked messages: they are held for later, those of one actor if it can be."""
    filters = {"state": "scheduled", "queue": queue.name}
    called, count = f"jobs of {queue.name}", state.stats.parked
    if len(state.unknown) == 1 and state.unknown != ("?",):
        filters["actor"] = called = state.unknown[0]
    elif count == 1:
        called = f"job of {queue.name}"
    return Act(f"Show {count:,} held {called}", "switchyard-jobs", query=f"?{urlencode(filters)}")


def look_at_undeclared() -> Iterator[Finding]:
    """Report queues with messages that this release does not declare.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    for name, count in sorted(undeclared_queues().items()):
        if count:
            messages = f"{counted(count, 'message')} {'is' if count == 1 else 'are'}"
            seen = f"{messages} in the queue {name}, which this release does not declare"
            cause = "It was renamed or removed while work waited"
            step = "Declare it again in the topology and start a pool for it"
            yield GROUP.error("undeclared", seen, cause, step, name)
