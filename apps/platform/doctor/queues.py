"""Queues: what is late, stuck, paused, failing, or set aside for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from apps.platform.conf import declared_yard
from apps.platform.console.formatting import duration, times
from apps.platform.doctor.finding import Finding
from apps.platform.doctor.snapshot import QueueLook, Snapshot
from apps.platform.operations.diagnosis import MANY_RETRIES, SEEN_MS
from broker.topology import Queue

GROUP = "queues"
# Leases that ran out are looked for every two seconds.
SWEPT_S = 6.0
MANY_CRASHES = 2
SHOWN = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge every queue, and say so when all is well."""
    found = [item for queue in declared_yard().queues for item in _queue(queue, snapshot.queues[queue.name])]
    found += _undeclared(snapshot)
    yield from found
    if not found:
        waiting = sum(queue.stats.live.waiting + queue.stats.retry.waiting for queue in snapshot.queues.values())
        yield Finding(GROUP, "on_time", "ok", f"{len(snapshot.queues)} queues, {waiting:,} messages wait, all on time")


def _queue(queue: Queue, look: QueueLook) -> Iterator[Finding]:
    yield from _late(queue, look)
    yield from _lapsed(queue, look)
    yield from _failing(queue, look)
    yield from _set_aside(queue, look)


def _late(queue: Queue, look: QueueLook) -> Iterator[Finding]:
    stats, age_ms = look.stats, look.stats.live.oldest_age_ms
    if stats.paused:
        seen = f"{queue.name} is paused, {stats.live.waiting:,} messages wait"
        yield Finding(
            GROUP, "paused", "warning", seen, "Somebody paused it", f"manage.py queues resume {queue.name}", queue.name
        )
        return
    if age_ms is None or queue.objective_ms is None or age_ms <= max(queue.objective_ms, SEEN_MS):
        return
    behind = times(age_ms / queue.objective_ms)
    seen = f"{queue.name}: the oldest of {stats.live.waiting:,} waits for {duration(age_ms)}, {behind} its promise"
    cause = "No pool takes from it, or its slots are all busy"
    step = f"manage.py queues, then `manage.py queues show {queue.name}`"
    yield Finding(GROUP, "late", "warning", seen, cause, step, queue.name)


def _lapsed(queue: Queue, look: QueueLook) -> Iterator[Finding]:
    old = {owner: since_s for owner, since_s in look.lapsed.items() if since_s > SWEPT_S}
    if not old:
        return
    since = duration(max(old.values()) * 1000)
    leases = "1 lease" if len(old) == 1 else f"{len(old)} leases"
    seen = f"{queue.name}: {leases} with {look.lapsed_messages:,} messages ran out, the first {since} ago"
    cause = "Its host vanished, and no pool of this queue runs that would take its messages back"
    pools = declared_yard().pools_of(queue.name)
    step = f"manage.py runpool {pools[0].name}" if pools else "Give the queue a pool in project/topology.py"
    yield Finding(GROUP, "lapsed", "error", seen, cause, step, queue.name)


def _failing(queue: Queue, look: QueueLook) -> Iterator[Finding]:
    retry = look.stats.retry
    retrying = retry.waiting + retry.scheduled + retry.running
    if retrying >= MANY_RETRIES:
        seen = f"{queue.name}: {retrying:,} failed messages wait to be tried again"
        cause = "One cause for many, such as a service that is away; nothing is lost until their retries are used up"
        step = f"manage.py queues show {queue.name} --lane retry --place scheduled"
        yield Finding(GROUP, "retrying", "warning", seen, cause, step, queue.name)
    crashed = {id_: count for id_, count in look.crashed.items() if count >= MANY_CRASHES}
    if crashed:
        named = ", ".join(list(crashed)[:SHOWN])
        seen = f"{queue.name}: {len(crashed)} messages took their worker down {MANY_CRASHES} times or more ({named})"
        cause = "A task that crashes its process; the third time makes it a dead letter `poison`"
        step = f"manage.py jobs show {shlex.quote(next(iter(crashed)))}"  # it is pasted, and anybody may name a message
        yield Finding(GROUP, "crashing", "warning", seen, cause, step, queue.name)


def _set_aside(queue: Queue, look: QueueLook) -> Iterator[Finding]:
    stats = look.stats
    if stats.quarantined:
        seen = f"{queue.name}: {stats.quarantined:,} unreadable messages are set aside"
        cause = "Something other than Switchyard writes to the queue, or the server deleted bodies"
        step = f"manage.py deadletters list --quarantined --queue {queue.name}"
        yield Finding(GROUP, "quarantined", "warning", seen, cause, step, queue.name)
    if stats.parked:
        actors = ", ".join(look.unknown[:SHOWN]) or "?"
        seen = f"{queue.name}: {stats.parked:,} messages wait for a worker that knows them; they call {actors}"
        cause = "A deploy that is under way, or that sends before it works; ten minutes make them dead letters"
        step = "manage.py check_backlog, with the code that the pools run; then deploy what knows them"
        yield Finding(GROUP, "parked", "warning", seen, cause, step, queue.name)


def _undeclared(snapshot: Snapshot) -> Iterator[Finding]:
    for name, count in sorted(snapshot.undeclared.items()):
        if count:
            seen = f"{count:,} messages are in the queue {name}, which this release does not declare"
            cause = "It was renamed or removed while work waited"
            step = "Declare it again in project/topology.py and start a pool for it"
            yield Finding(GROUP, "undeclared", "error", seen, cause, step, name)
