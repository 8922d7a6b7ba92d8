"""Judgement of what attempts spend and call: dependencies that are down, a database that holds up, actors that leak.

Rules and thresholds of dependencies and databases were tuned in a simulation of 16 yards.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import dramatiq

from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, actor_subject, ends, failures, merged, sent
from switchyard.console.formatting import counted, duration, whole_duration
from switchyard.operations.findings.actors import GROUP
from switchyard.operations.findings.facts import sends_itself
from switchyard.operations.findings.finding import Button, Finding
from switchyard.operations.findings.pools import REPLACED
from switchyard.operations.past import Usual

DOWN: Final = "actors.dependency_down"
Buckets = Sequence[tuple[int, Mapping[str, Counts]]]
# Words for an actor that is slower than usual, by what most of the time goes to.
DATABASE_SLOW, DEPENDENCY_SLOW = "Database slow", "Dependency slow"
# A dependency is down by its calls of 30, 60 or 180 s: so many, so many failed, and a third at least, for sure.
CALLED: Final = (3, 6, 18)
LEAST_CALLS, LEAST_FAILED, LEAST_RATE, Z = 5, 4, 0.33, 2.58
# The database holds up actors whose runs of the last 2 min are in SQL for four times as long as usually, 50 ms at
# least, and whose share of SQL went half the way from the usual one to all.
BOUND_BUCKETS, LEAST_RUNS, LEAST_ACTORS, TIMES, LEAST_SQL_MS = 12, 5, 2, 4.0, 50.0
# More of an actor is sent than its limits let start: twice as many in 8 of the last 12 buckets, 20 at least put off.
OUTRUN_BUCKETS, OUTRUN, OUTRUN_TIMES, LEAST_PUT_OFF = 12, 8, 2, 20
# An actor loops that sends itself ten times a second in each of the last 12 buckets, three times as often as usually.
LOOP_SENDS, LOOP_TIMES = 100, 3
# An actor leaks that grows its processes by 64 MiB in 10 min, in each part of it in which it runs, and as much at the
# end: what a process loads once comes at the beginning. Where processes are replaced for that, growing them twice is
# enough.
PART, PARTS, LEAST_PARTS, LEAKED_BYTES, LAST_SHARE = 12, 5, 4, 64 * 2**20, 0.25


def dependency_of(actor: str) -> str:
    """Return the dependency that an actor declares; "" for none, and for many, by the value of an argument."""
    declared = dramatiq.get_broker().actors.get(actor)
    depends_on = "" if declared is None else str(declared.options.get("depends_on") or "")
    return "" if " per " in depends_on else depends_on


def said_once(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings without the calls of a dependency whose open circuit, found before, says what they said."""
    kept: list[Finding] = []
    told: set[tuple[str, str]] = set()
    for found in findings:
        if found.name == DOWN:
            places = {(dependency_of(found.actor) or found.actor, queue) for queue in (found.subject, *found.also)}
            if places & told:
                continue
            told |= places
        kept.append(found)
    return kept


def look(buckets: Buckets, usual: Mapping[str, Usual]) -> Iterator[Finding]:
    """Judge dependencies, the database and every actor of this code by the facts of the last 15 minutes."""
    actors = {name: actor.queue_name for name, actor in sorted(dramatiq.get_broker().actors.items())}
    for dependency in sorted({dependency_of(name) for name in actors} - {""}):
        yield from down(dependency, actors, [found.get(f"d:{dependency}", {}) for _, found in buckets])
    counted_of = {name: [found.get(actor_subject(name), {}) for _, found in buckets] for name in actors}
    recent = {name: merged(mine[-BOUND_BUCKETS:]) for name, mine in counted_of.items() if actor_subject(name) in usual}
    bound = {name: counts for name, counts in recent.items() if in_database(usual[actor_subject(name)], counts)}
    if len(bound) >= LEAST_ACTORS:
        yield _database_bound(bound, actors, usual)
    for name, queue in actors.items():
        yield from outrun(name, queue, counted_of[name])
        yield from loops(name, queue, usual.get(actor_subject(name)), counted_of[name])
    replaced = REPLACED.queues()
    yield from leaking(actors, {name: grew(counted_of[name], replaced=actors[name] in replaced) for name in actors})


def merged_by_subject(buckets: Buckets) -> dict[str, dict[int, int]]:
    names = {name for _, found in buckets for name in found}
    return {name: merged(found.get(name, {}) for _, found in buckets) for name in names}


def least_rate(failed: int, calls: int) -> float:
    """Return the rate of failures that is certain: Wilson's lower bound."""
    rate, square = failed / calls, Z * Z
    spread = Z * math.sqrt(rate * (1 - rate) / calls + square / (4 * calls * calls))
    return (rate + square / (2 * calls) - spread) / (1 + square / calls)


def down(dependency: str, actors: Mapping[str, str], mine: Sequence[Counts]) -> Iterator[Finding]:
    """Yield the finding for a dependency of which calls fail, the last of them too."""
    newest = next((counts for counts in reversed(mine) if ends(counts)), {})
    for length in CALLED if failures(newest) else ():
        counts = merged(mine[-length:])
        calls, failed = ends(counts), failures(counts)
        if calls >= LEAST_CALLS and failed >= LEAST_FAILED and least_rate(failed, calls) >= LEAST_RATE:
            users = [name for name in actors if dependency_of(name) == dependency]
            of = f"{users[0]} and {counted(len(users) - 1, 'other actor')}" if len(users) > 1 else users[0]
            span = whole_duration(length * facts.BUCKET_MS)
            seen = f"{dependency} is down: {failed:,} of {calls:,} calls of {of} failed within {span}"
            then = f"Mend {dependency}. Its circuit puts off further calls by itself, and what waits starts then."
            yield of_actors("dependency_down", {name: actors[name] for name in users}, seen, then, float(failed))
            return


def in_database(usual: Usual, counts: Counts) -> bool:
    """Return whether an actor's runs spend clearly more in SQL than usually, and more than in anything else."""
    ended, ran_ms = ends(counts), counts.get(facts.RUN_MS, 0)
    if ended < LEAST_RUNS or not ran_ms or not usual.mean_ms:
        return False
    sql_ms, normal = counts.get(facts.SQL_MS, 0), usual.sql_ms / usual.mean_ms
    enough = sql_ms / ended >= max(TIMES * usual.sql_ms, LEAST_SQL_MS)
    return enough and sql_ms / ran_ms >= normal + (1 - normal) / 2


def _database_bound(bound: Mapping[str, Counts], actors: Mapping[str, str], usual: Mapping[str, Usual]) -> Finding:
    users = sorted(bound, key=lambda name: -bound[name].get(facts.SQL_MS, 0))
    counts, own = bound[users[0]], usual[actor_subject(users[0])]
    sql, ran = (duration(counts[code] / ends(counts)) for code in (facts.SQL_MS, facts.RUN_MS))
    in_sql = f"{users[0]} is in SQL for {sql} of {ran} a job, usually {duration(own.sql_ms)} {own.basis}"
    seen = f"the database holds up {users[0]} and {counted(len(users) - 1, 'other actor')}: {in_sql}"
    then = "Look for a lock or a slow query in the database's list of activity. More slots would add queries."
    return of_actors("database_bound", {name: actors[name] for name in users}, seen, then, float(len(users)))


def goes_to(actor: str, usual: Usual, counts: Counts) -> tuple[str, str, str]:
    """Return to what most of the time goes that runs take longer than usually: its word or "", a clause, a remedy."""
    ended, dependency = ends(counts), dependency_of(actor)
    more_ms = counts.get(facts.RUN_MS, 0) / ended - usual.mean_ms if ended else 0.0
    if more_ms > 0 and counts.get(facts.SQL_MS, 0) / ended - usual.sql_ms >= more_ms / 2:
        return DATABASE_SLOW, ", most of it in SQL", f"the queries of {actor} and what locks their rows"
    if more_ms > 0 and counts.get(facts.PROCESSOR_MS, 0) / ended - usual.processor_ms >= more_ms / 2:
        return "", ", most of it on a processor", f"what {actor} computes"
    if dependency:
        return DEPENDENCY_SLOW, f"; it calls {dependency}", dependency
    return "", "", f"what {actor} calls"


def outrun(actor: str, queue: str, mine: Sequence[Counts]) -> Iterator[Finding]:
    """Yield the finding for an actor of which more is sent all the time than its limits let start."""
    options = dramatiq.get_broker().actors[actor].options
    if not (options.get("rate_limit") or options.get("concurrency")):
        return
    more = [each for each in mine[-OUTRUN_BUCKETS - 1 : -1] if sent(each) > OUTRUN_TIMES * ends(each)]  # full buckets
    counts = merged(more)
    if len(more) < OUTRUN or counts.get(facts.DEFERRED, 0) < LEAST_PUT_OFF:
        return
    minutes = len(more) * facts.BUCKET_MS / 60_000
    arrive, start = round(sent(counts) / minutes), round(ends(counts) / minutes)
    grows = f"what waits of it grows by {arrive - start:,} a minute"
    seen = f"{actor} is sent {arrive:,} times a minute, and its limit lets {start:,} start: {grows}"
    less = "Raise the limit, if what it protects bears that (`queues override` does so for a time), or send less."
    then = f"{less} Until then each job waits longer than the one before."
    yield of_actors("outrun", {actor: queue}, seen, then, float(arrive - start))


def loops(actor: str, queue: str, usual: Usual | None, mine: Sequence[Counts]) -> Iterator[Finding]:
    """Yield the finding for an actor whose jobs send it again and again, many more than usually."""
    window = mine[-OUTRUN_BUCKETS - 1 : -1]  # the newest bucket has just begun
    if len(window) < OUTRUN_BUCKETS or min(map(sent, window)) < LOOP_SENDS:
        return
    a_minute = sum(map(sent, window)) / (len(window) * facts.BUCKET_MS / 60_000)
    usually = 0.0 if usual is None else usual.sent_a_minute or 0.0
    if a_minute < LOOP_TIMES * usually or not sends_itself(actor, queue):
        return
    seen = f"jobs of {actor} send {actor} again and again: {a_minute:,.0f} a minute"
    seen += f", usually {usually:,.0f} {usual.basis}" if usual is not None and usually else ""
    cancel = f"`manage.py switchyard jobs cancel --filter actor={actor}`"
    then = f"If that is not wanted, pause {actor}, then cancel what waits of it: {cancel}. Nothing else ends it."
    button = Button(f"Pause {actor}…", "switchyard-actor-pause", actor)
    step = f"manage.py switchyard actors pause {actor}"
    yield GROUP.warning("loops", seen, "", step, queue, then=then, button=button, factor=a_minute, actor=actor)


def grew(mine: Sequence[Counts], *, replaced: bool = False) -> tuple[int, int, int]:
    """Return by how many bytes processes grew while an actor ran, again and again; its jobs, and their time in ms.

    A process grows by what runs in it together: its growth is split among them. Zeros for no leak. ``replaced``: its
    pool has replaced two children for their memory meanwhile.
    """
    mine = mine[-PART * PARTS :]
    parts = [merged(mine[at : at + PART]) for at in range(0, len(mine), PART)]
    ran = [(ends(part), part.get(facts.GROWN_BYTES, 0)) for part in parts if ends(part)]
    jobs, grown = sum(ended for ended, _ in ran), sum(bytes_ for _, bytes_ in ran)
    if replaced:
        grows = [bucket.get(facts.GROWN_BYTES, 0) > 0 for bucket in mine if ends(bucket)]
        leaks = sum(grows) > 1 and sum(grows) >= len(grows) / 2  # less: a job of many takes too much at once
    else:
        lasts = sum(bytes_ for _, bytes_ in ran[-2:]) >= LAST_SHARE * grown
        leaks = len(ran) >= LEAST_PARTS and all(bytes_ for _, bytes_ in ran) and lasts
    ran_ms = sum(part.get(facts.RUN_MS, 0) for part in parts)
    return (grown, jobs, ran_ms) if leaks and grown >= LEAKED_BYTES else (0, 0, 0)


def leaking(actors: Mapping[str, str], found: Mapping[str, tuple[int, int, int]]) -> Iterator[Finding]:
    """Yield the finding for each queue whose processes grow, with the actors that may be it, the likeliest first.

    ``found`` is by actor what :func:`grew` returns.
    """
    for queue in dict.fromkeys(actors.values()):
        mine = {name: grown for name, (grown, _, _) in found.items() if grown and actors[name] == queue}
        if not mine:
            continue
        # Long runs meet the leaks of others: by the time that it runs, the actor that leaks grows most.
        first, *others = sorted(mine, key=lambda name: -mine[name] / max(found[name][2], 1))
        grown, jobs, span = sum(mine.values()), found[first][1], whole_duration(PARTS * PART * facts.BUCKET_MS)
        a_job = grown / jobs / 1e6
        seen = f"{first} leaks about {a_job:,.{0 if a_job >= 10 else 1}f} MB a job: its processes grew by"
        if others:
            seen = f"{', '.join([first, *others[:-1]])} or {others[-1]} leaks: processes that ran them grew by"
        seen += f" {grown / 1e6:,.0f} MB in {span}, within {counted(jobs, 'job')}{f' of {first}' if others else ''}"
        keeps = f"Look first at what {first} loads at once, or keeps in a cache or a list of its module."
        then = f"{keeps} Its pool replaces what grows too large."
        leak = of_actors("leaking", {first: queue}, seen, then, grown / 1e6)
        yield replace(leak, actor="") if others else leak


def of_actors(code: str, actors: Mapping[str, str], seen: str, then: str, factor: float, word: str = "") -> Finding:
    """Return the warning about actors, named with their queues, the likeliest first: it is shown."""
    actor, (queue, *others) = next(iter(actors)), dict.fromkeys(actors.values())
    step, button = f"manage.py switchyard actors show {actor}", Button(f"Show {actor}", "switchyard-actor", actor)
    return GROUP.warning(
        code, seen, "", step, queue, then=then, button=button, factor=factor, also=tuple(others),
        actor=actor, word=word,
    )  # fmt: skip
