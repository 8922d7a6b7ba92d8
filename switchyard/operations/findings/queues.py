"""Checks of queues: expired leases, messages that crash their worker, and messages that no worker can run."""

import shlex
from collections.abc import Iterator, Sequence

from switchyard.broker.admin.purge import purges
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import OpenCircuit, QueuePause
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import ago, counted, duration, jobs_text
from switchyard.jobs.queries import answering_families
from switchyard.operations.findings.actors import GROUP as ACTORS
from switchyard.operations.findings.facts import UNDECLARED, HeldGroup, QueueFacts, Snapshot, YardFacts
from switchyard.operations.findings.finding import LOOK_AT_WORKERS, Button, Finding, FindingGroup, jobs_button
from switchyard.operations.findings.pools import is_newer, undeclared
from switchyard.operations.rows import Row

GROUP = FindingGroup("queues")
# A limit is told when its last message starts after so long, or after half of the queue's promise; sooner where the
# first has waited for a place.
HELD_LONG_MS, WAITED_LONG_MS = 60_000, 30_000
FEW = 3
# Fewer concurrent retries of one queue are normal: retries wait for hours, and one endpoint that is away holds dozens.
MANY_RETRIES = 100


def look_at_held(facts: YardFacts) -> Iterator[Finding]:
    """Judge pauses, limits and retries."""
    pauses = {stats.queue: stats.pause or QueuePause() for stats in facts.state.queues if stats.paused}
    for row in facts.queue_rows:
        if row.queue in pauses:
            yield _paused(row, pauses[row.queue], facts)
        for group in facts.held.get(row.queue, ()):
            if is_long(row.queue, group):
                yield _limited(row.queue, group)
    for stats in facts.state.queues:
        waiting = [each for each in stats.circuits if each.waiting]
        for dependency in dict.fromkeys(each.pause.dependency for each in waiting):
            circuits = [each for each in waiting if each.pause.dependency == dependency]
            yield circuit_open(stats.queue, dependency, circuits)
        if (count := stats.retry.total) >= MANY_RETRIES:
            yield _retrying(stats.queue, count)


def is_long(queue: str, group: HeldGroup) -> bool:
    """Return whether a limit holds messages back for longer than a person should find out by themselves."""
    promise_ms = declared_yard().queue_of(queue).objective_ms or 0
    least_ms = max(HELD_LONG_MS if group.due else WAITED_LONG_MS, promise_ms / 2)
    return (group.by_limit or group.paused) and group.count >= FEW and _held_ms(group) > least_ms


def limited_text(group: HeldGroup) -> str:
    """Return how many wait for their turn, and for how long the last; or the first has, where no time ends it."""
    count, which = f"{group.count:,}{' or more' if group.more else ''}", "last" if group.due else "first"
    return f"{count} {group.actor} wait for their turn, the {which} for {duration(_held_ms(group))}"


def look_at_purges() -> Iterator[Finding]:
    """Report purges whose messages can still be put back."""
    for family in answering_families():
        for purge in purges(family):
            if purge.claim:
                continue
            queue = family.keys.queue
            jobs, left = counted(purge.count, "job"), duration(max(purge.until - now_ms(), 0))
            they, are = ("it", "is") if purge.count == 1 else ("they", "are")
            reason = f" ({purge.reason})" if purge.reason else ""
            seen = f"{purge.by or 'an operator'} purged {jobs} of {queue}{reason}; {they} can be put back for {left}"
            then = f"After that {they} {are} dropped for good."
            button = Button(f"Put back {jobs} of {queue}…", "switchyard-queue", queue)
            step = f"manage.py switchyard queues purge {queue} --undo"
            yield GROUP.warning("purged", seen, "", step, queue, then=then, button=button)


def _held_ms(group: HeldGroup) -> int:
    """Return for how long the last is held still; for how long the first has waited, where no time ends it."""
    ms = int(group.last.timestamp() * 1_000) - now_ms()
    return max(ms if group.due else now_ms() - int(group.sent.timestamp() * 1_000), 0)


def _limited(queue: str, group: HeldGroup) -> Finding:
    actor, factor = group.actor, float(_held_ms(group))
    if group.paused:
        seen = f"{limited_text(group)}: it is paused, or those with a value of an argument are"
        then = "They start once a person resumes it, or at the end of the pause: the actor's page says who paused it."
        button, step = Button(f"Show {actor}", "switchyard-actor", actor), f"manage.py switchyard actors show {actor}"
    else:
        limit = f"{group.reason}," if "," in group.reason else group.reason
        seen = f"{limited_text(group)}: its {limit} holds them back"
        when = f"one by one without you, the last at {group.last:%H:%M:%S} UTC"
        then = f"They start {when if group.due else 'as those that run end'}. To be faster, raise the limit of {actor}."
        count = f"{group.count:,}" if not group.more else "the"
        button = jobs_button(f"Show {count} scheduled {actor}", state="scheduled", queue=queue, actor=actor)
        step = f"manage.py switchyard jobs list --queue {queue} --state scheduled"
    return GROUP.warning("limited", seen, "", step, queue, then=then, button=button, factor=factor)


def _paused(row: Row, pause: QueuePause, facts: YardFacts) -> Finding:
    waiting, age_s = row.waiting or 0, max(now_ms() - pause.since, 0) / 1_000 if pause.since else None
    since = "" if age_s is None else f" {duration(age_s * 1_000)} ago"
    reason = f" ({pause.reason})" if pause.reason else ""
    until, then = "", "It stays paused until a person resumes it; then what waits starts as fast as its slots take it."
    if pause.until:
        until = f" until {datetime_of(pause.until):%Y-%m-%d %H:%M} UTC"
        then = f"It resumes by itself at {datetime_of(pause.until):%H:%M:%S} UTC, or now on the next page."
    seen = f"{row.name} starts nothing, because {pause.by or 'an operator'} paused it{since}{until}{reason}; "
    seen += jobs_text(waiting, "nothing waits yet")
    most = declared_yard().queue_of(row.queue).max_depth
    held = [stats.live.waiting + stats.live.scheduled for stats in facts.state.queues if stats.queue == row.queue]
    if most is not None and sum(held) >= most:
        seen += ", and it is full: who sends to it gets QueueFull"
    label = f"Resume {row.name} and start {counted(waiting, 'job')}…" if waiting else f"Resume {row.name}…"
    button = Button(label, "switchyard-queue-resume", row.queue)
    cause = f"{pause.by or 'An operator'} paused it" + (f": {pause.reason}" if pause.reason else ", without a reason")
    step, factor = f"manage.py switchyard queues resume {row.name}", float(waiting)
    return GROUP.warning(
        "paused", seen, cause, step, row.queue, then=then, button=button, factor=factor, lasted_s=age_s
    )


def circuit_open(queue: str, dependency: str, circuits: Sequence[OpenCircuit]) -> Finding:
    """Say what is down, or who opened its circuit, and what waits for it; never the values of arguments.

    That of a whole dependency, which nothing calls any more, is the finding about its calls.
    """
    waiting, pause = sum(each.waiting for each in circuits), circuits[0].pause
    since = duration(max(now_ms() - min(each.pause.since for each in circuits), 0))
    values = f" for {counted(len(circuits), 'value')} of {pause.argument}" if pause.argument else ""
    waits, actor, factor = jobs_text(waiting), min(pause.calls or (queue,)), float(waiting)
    button = Button(f"Show {actor}", "switchyard-actor", actor)
    if all(each.pause.by and each.pause.times == 1 for each in circuits):
        reason = f" ({pause.reason})" if pause.reason and not pause.argument else ""
        seen = f"{pause.by} opened the circuit of {dependency}{values} in {queue} {since} ago{reason}; {waits}"
        probed = ago(datetime_of(pause.until))
        then = f"One job probes it {probed}; its success starts the others. Close it to start them now."
        # Whose values are open is an argument, which the limits show to those who may see it.
        step = f"manage.py switchyard {'queues limits' if pause.argument else f'actors resume {actor}'}"
        return GROUP.warning("paused", seen, "", step, queue, then=then, button=button, factor=factor)
    seen = f"{dependency} is down{values}: its circuit is open in {queue} since {since}, {waits}"
    then = "One job probes it every few seconds; when one succeeds, what waits starts by itself. Nothing is lost."
    step = f"manage.py switchyard actors show {actor}"
    cause = "Calls of it failed" + (f", first with: {pause.reason}" if pause.reason and not pause.argument else "")
    group, code, of = (GROUP, "circuit_open", "") if pause.argument else (ACTORS, "dependency_down", actor)
    return group.warning(code, seen, cause, step, queue, then=then, button=button, factor=factor, actor=of)


def _retrying(queue: str, count: int) -> Finding:
    seen = f"{count:,} failed jobs of {queue} wait for a retry"
    cause = "One common cause, such as a service that is down; nothing is lost until their retries are exhausted"
    step = f"manage.py switchyard jobs list --queue {queue} --state retrying"
    then = "Remove the cause and they finish by themselves; until then nothing is lost."
    button = jobs_button(f"Show {count:,} retrying jobs of {queue}", state="retrying", queue=queue)
    return GROUP.warning("retrying", seen, cause, step, queue, then=then, button=button, factor=float(count))


# Expired leases are reclaimed every 2 s; older ones mean that no process reclaims them.
RECLAIMED_S = 6.0
MANY_CRASHES = 2
SHOWN = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    for queue in declared_yard().queues:
        if state := snapshot.queues.get(queue.name):
            yield from _expired(queue, state)
            yield from _failing(queue, state)
            yield from _set_aside(queue, state)


def on_time(snapshot: Snapshot) -> Finding:
    place = switchyard_settings().place
    if place is not None and not place.tells_ages:
        seen = f"{counted(len(snapshot.queues), 'queue')} on {place.title}, which tells no ages: lateness is not known"
        return GROUP.ok(f"{seen}; `manage.py switchyard queues` counts what waits")
    waiting = sum(queue.stats.live.waiting + queue.stats.retry.waiting for queue in snapshot.queues.values())
    waits = f"{counted(waiting, 'message')} {'waits' if waiting == 1 else 'wait'}"
    return GROUP.ok(f"{counted(len(snapshot.queues), 'queue')}, {waits}, all on time")


def _expired(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    old_s = [since_s for since_s in state.expired.values() if since_s > RECLAIMED_S]
    if not old_s or not state.expired_messages:
        return
    since = f"{'' if len(old_s) == 1 else 'the first '}{duration(max(old_s) * 1_000)}"
    leases, messages = counted(len(old_s), "lease"), counted(state.expired_messages, "message")
    seen = f"{queue.name}: {leases} with {messages} expired, {since} ago"
    cause = "Its host is gone, and no pool of this queue runs that would reclaim its messages"
    pools = declared_yard().pools_of(queue.name)
    step = f"manage.py switchyard runpool {pools[0].name}" if pools else "Give the queue a pool in the topology"
    yield GROUP.error("lapsed", seen, cause, step, queue.name, button=LOOK_AT_WORKERS)


def _failing(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    if crashed := [id_ for id_, count in state.crashed.items() if count >= MANY_CRASHES]:
        known = (f"{state.actors[id_]}, {id_}" if id_ in state.actors else id_ for id_ in crashed[:SHOWN])
        messages, their = counted(len(crashed), "message"), "its" if len(crashed) == 1 else "their"
        seen = f"{queue.name}: {messages} crashed {their} worker {MANY_CRASHES} times or more ({', '.join(known)})"
        cause = "A task crashes its process; after the third time its message becomes a dead letter `poison`"
        step = f"manage.py switchyard jobs show {shlex.quote(crashed[0])}"  # ids are user input
        yield GROUP.warning("crashing", seen, cause, step, queue.name, button=_job_button(crashed[0], state))
    if state.lapses:
        most, count = max(state.lapses, key=lambda id_: state.lapses[id_]), len(state.lapses)
        named = ", ".join(sorted(state.lapses)[:SHOWN])
        lost = f", held by a pool that fell silent, {'is' if count == 1 else 'are'} to run alone"
        seen = f"{queue.name}: {counted(count, 'message')}{lost} ({named})"
        cause = "A container, a machine or a supervisor was killed or stopped"
        if times := state.lapses[most]:
            killed = f"A container was killed {counted(times, 'time')} while {most} ran alone in it"
            cause = (
                f"{killed}, perhaps for its memory; after the fifth time it becomes a dead letter `suspected_poison`"
            )
        step = f"manage.py switchyard jobs show {shlex.quote(most)}"
        yield GROUP.warning("suspects", seen, cause, step, queue.name, button=_job_button(most, state))


def _job_button(id_: str, state: QueueFacts) -> Button | None:
    """Return the button that leads to a job; ``None`` for an id that no URL can have."""
    of = f" of {state.actors[id_]}" if id_ in state.actors else ""
    return Button(f"Show the job{of}", "switchyard-job", id_) if "/" not in id_ else None


def _set_aside(queue: Queue, state: QueueFacts) -> Iterator[Finding]:
    stats = state.stats
    if stats.quarantined:
        messages = counted(stats.quarantined, "unreadable message")
        seen = f"{queue.name}: {messages} {'is' if stats.quarantined == 1 else 'are'} quarantined"
        cause = "Another program writes to the queue, or the server evicted message bodies"
        step = f"manage.py switchyard deadletters list --quarantined --queue {queue.name}"
        button = Button(f"Show {messages}", "switchyard-quarantine")
        yield GROUP.warning("quarantined", seen, cause, step, queue.name, button=button)
    if stats.parked:
        actors, messages = ", ".join(state.unknown[:SHOWN]) or "?", counted(stats.parked, "message")
        waits, calls = ("waits", "run it; it calls") if stats.parked == 1 else ("wait", "run them; they call")
        seen = f"{queue.name}: {messages} {waits} for a worker that can {calls} {actors}"
        cause = (
            "Workers have no such actor, or one with other arguments: senders and workers have different releases; "
            "after ten minutes they become dead letters"
        )
        step = (
            "manage.py switchyard check_backlog, with the code that the pools run, names what does not fit; then "
            "deploy code that declares the actors in actors.py of an installed app, each new argument with a default"
        )
        yield GROUP.warning("parked", seen, cause, step, queue.name, button=_parked_button(queue, state))


def _parked_button(queue: Queue, state: QueueFacts) -> Button:
    """Return the button that leads to the parked messages: they are scheduled, those of one actor if it can be."""
    filters = {"state": "scheduled", "queue": queue.name}
    called, count = f"jobs of {queue.name}", state.stats.parked
    if len(state.unknown) == 1 and state.unknown != ("?",):
        filters["actor"] = called = state.unknown[0]
    elif count == 1:
        called = f"job of {queue.name}"
    return jobs_button(f"Show {count:,} scheduled {called}", **filters)


def look_at_undeclared() -> Iterator[Finding]:
    """Report queues with messages that this release does not declare."""
    found = {name: count for name, count in sorted(UNDECLARED.look().items()) if count}
    reports = facilities().pools.read_all() if found else []
    serving = {each.pool for each in reports if each.release and is_newer(each, reports)}
    serving |= {each.pool for each in undeclared(reports)}
    for name, count in found.items():
        are = "is" if count == 1 else "are"
        seen = f"{counted(count, 'message')} {are} in the queue {name}, which this release does not declare"
        cause = "It was renamed or removed while work waited"
        step = "Declare it again in the topology and start a pool for it"
        if serving:
            cause = f"Pools of another release may serve it: {', '.join(sorted(serving))}"
            step = "Deploy what is of the older release, then look again"
        yield GROUP.finding("warning" if serving else "error", "undeclared", seen, cause, step, name)
