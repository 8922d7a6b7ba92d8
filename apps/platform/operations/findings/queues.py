"""Checks of queues: expired leases, messages that crash their worker, and messages that no worker can run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from apps.platform.conf import declared_yard
from apps.platform.console.formatting import duration
from apps.platform.operations.findings.finding import Finding, FindingGroup
from apps.platform.operations.findings.snapshot import QueueFacts, Snapshot, undeclared_queues
from broker.topology import Queue

GROUP = FindingGroup("queues")
# Expired leases are reclaimed every 2 s; older ones mean that no process reclaims them.
RECLAIMED_S = 6.0
MANY_CRASHES = 2
SHOWN = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Check every queue."""
    for queue in declared_yard().queues:
        yield from _queue(queue, snapshot.queues[queue.name])


def on_time(snapshot: Snapshot) -> Finding:
    """Return the finding for queues without a defect."""
    waiting = sum(queue.stats.live.waiting + queue.stats.retry.waiting for queue in snapshot.queues.values())
    return GROUP.ok("on_time", f"{len(snapshot.queues)} queues, {waiting:,} messages wait, all on time")


def _queue(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    yield from _expired(queue, state)
    yield from _failing(queue, state)
    yield from _set_aside(queue, state)


def _expired(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    old = {owner: since_s for owner, since_s in state.expired.items() if since_s > RECLAIMED_S}
    if not old:
        return
    since = duration(max(old.values()) * 1000)
    leases = "1 lease" if len(old) == 1 else f"{len(old)} leases"
    seen = f"{queue.name}: {leases} with {state.expired_messages:,} messages expired, the first {since} ago"
    cause = "Its host is gone, and no pool of this queue runs that would reclaim its messages"
    pools = declared_yard().pools_of(queue.name)
    step = f"manage.py runpool {pools[0].name}" if pools else "Give the queue a pool in project/topology.py"
    yield GROUP.error("lapsed", seen, cause, step, queue.name)


def _failing(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    crashed = {id_: count for id_, count in state.crashed.items() if count >= MANY_CRASHES}
    if crashed:
        named = ", ".join(_named(id_, state) for id_ in list(crashed)[:SHOWN])
        seen = f"{queue.name}: {len(crashed)} messages crashed their worker {MANY_CRASHES} times or more ({named})"
        cause = "A task crashes its process; after the third time its message becomes a dead letter `poison`"
        step = f"manage.py jobs show {shlex.quote(next(iter(crashed)))}"  # ids are user input
        yield GROUP.warning("crashing", seen, cause, step, queue.name)
    if state.lapses:
        most = max(state.lapses, key=lambda id_: state.lapses[id_])
        named = ", ".join(sorted(state.lapses)[:SHOWN])
        seen = f"{queue.name}: {len(state.lapses)} messages ran when a whole pool ended, and run alone ({named})"
        cause = "A container or a machine was killed"
        if times := state.lapses[most]:
            cause = (
                f"A container was killed {times} times while {most} ran alone in it, perhaps for its memory; "
                "after the fifth time it becomes a dead letter `suspected_poison`"
            )
        step = f"manage.py jobs show {shlex.quote(most)}"
        yield GROUP.warning("suspects", seen, cause, step, queue.name)


def _named(id_: str, state: QueueFacts) -> str:
    return f"{state.actors[id_]}, {id_}" if id_ in state.actors else id_


def _set_aside(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    stats = state.stats
    if stats.quarantined:
        seen = f"{queue.name}: {stats.quarantined:,} unreadable messages are quarantined"
        cause = "Another program writes to the queue, or the server evicted message bodies"
        step = f"manage.py deadletters list --quarantined --queue {queue.name}"
        yield GROUP.warning("quarantined", seen, cause, step, queue.name)
    if stats.parked:
        actors = ", ".join(state.unknown[:SHOWN]) or "?"
        seen = f"{queue.name}: {stats.parked:,} messages wait for a worker that can run them; they call {actors}"
        cause = (
            "A deploy is under way, or senders were deployed before workers; after ten minutes they become dead letters"
        )
        step = "manage.py check_backlog, with the code that the pools run; then deploy code that declares the actors"
        yield GROUP.warning("parked", seen, cause, step, queue.name)


def look_at_undeclared() -> Iterator[Finding]:
    """Report queues with messages that this release does not declare.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    for name, count in sorted(undeclared_queues().items()):
        if count:
            seen = f"{count:,} messages are in the queue {name}, which this release does not declare"
            cause = "It was renamed or removed while work waited"
            step = "Declare it again in project/topology.py and start a pool for it"
            yield GROUP.error("undeclared", seen, cause, step, name)
