"""Reasons why an unfinished job has not run: the chain of causes, its wait so far by parts, and when it will start.

Page, command and API show what :func:`why` returns. It reads the broker in at most eleven round trips, and the
database in at most two queries, however many jobs wait: places are searched at both ends of a list only, and the times
of starts are those of the last 500 jobs of the lane.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import NormalDist, pvariance
from typing import Any, Final

import dramatiq
from django.db import DatabaseError

from switchyard.api.responses import iso_time
from switchyard.broker.admin.browse import SeenMessage, leased, place_of
from switchyard.broker.clock import CIRCUIT_SPAN_MS, CIRCUITS_MS, PUT_OFF_MS, datetime_of, is_put_off, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Lane
from switchyard.broker.queue.limits import LimitWait, wait_of
from switchyard.broker.shapes import CIRCUIT, ActorPause
from switchyard.broker.stores.job_record import Job, holder_of, job_of_message, number_or_none
from switchyard.broker.stores.pool_reports import QUIETED, PoolReport
from switchyard.broker.topology import lane_of_name
from switchyard.conf import declared_yard
from switchyard.console.formatting import ago, counted, duration, most_common, pause_facts
from switchyard.history.queries import recent_runs
from switchyard.jobs.presentation import Passport, limit_words, passport_of
from switchyard.jobs.queries import families, find_untracked, records_of, silent_children
from switchyard.middleware.arguments import misfit, signature_of
from switchyard.middleware.errors import place_of as place_of_code
from switchyard.outbox.rows import is_behind, waiting_row

# A process that commits sends at once; the relay sends what is older, twice a second.
RELAYED_MS: Final = 2_000
# Starts from which a rate is reckoned.
LEAST_STARTS: Final = 8
# A range that is to hold in nine of ten cases. The edges lie a little further apart: a sample lacks the rarest waits.
EDGES: Final = (0.04, 0.965)
# Sums of gaps from which their shares are read off, as none of a distribution fits slots that end together.
SEEN_SUMS: Final = 20
# A gap since the last start that so few would exceed says that the rate is over.
STALLED: Final = 0.999
NORMAL: Final = NormalDist()
# Reasons of jobs that wait for a limit which knows since when.
LIMITS: Final = ("concurrency", "order")
# Parts of the time from the enqueueing of a job to now, or to its start, in the order in which they pass (ms).
PARTS: Final = {
    "attempts_ms": "earlier attempts",  # to the end of the last one
    "outbox_ms": "in the outbox",  # once the broker has it, this counts as waiting
    "scheduled_ms": "scheduled",  # a delay, or the backoff of a retry
    "put_off_ms": "put off",  # by a pause, a circuit, a limit, or for code that no worker has
    "waiting_ms": "waiting for a slot",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause that a job does not run.

    Args:
        code: Stable name, such as ``queue_paused``; of a limit the reason that its deferral carries.
        text: Sentence for a person.
        until: When it ends by itself, ms since the epoch; ``None`` where nobody knows.
        sure: It ends then, and not later.
        stops: The job cannot start before its end.
        since: When it began, ms since the epoch, of what counts as time put off.
    """

    code: str
    text: str
    until: int | None = None
    sure: bool = True
    stops: bool = True
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Starts:
    """When a job will start, ms since the epoch, nine times of ten in between; ``latest`` is ``None`` if not known."""

    earliest: int
    latest: int | None


class Why:
    """Reasons of one job, with the facts of it and of its wait.

    ``causes`` are in the order in which the job meets them: the first one is where it stands now. ``starts`` is
    ``None`` where nobody knows, as while its queue is paused without an end; of a running job as well. ``wait`` has its
    :data:`PARTS` in ms. ``silent`` is the child of its ``holder`` that answers nothing.

    ``lane`` is the name of the lane that it is in. ``place`` is ``None`` where a worker or the outbox holds it, and on
    a broker that cannot be browsed; ``held`` is the job as a worker holds it, ``running`` what runs in the slots that
    serve the lane. ``reports`` are those of the pools that serve it, ``None`` while they are unknown.

    Args:
        arguments: Its reader may view arguments.
    """

    def __init__(self, known: Passport, at: int, *, arguments: bool) -> None:
        yard, job, in_outbox = declared_yard(), known.job, known.job.reason == "outbox"
        self.known, self.job, self.at, self.arguments = known, job, at, arguments
        self.outbox = waiting_row(job.id) if in_outbox else None
        own = [] if in_outbox else families([job.queue])
        waits = own and job.state != "running"
        place = place_of(own[0], job.id, at) if waits else None
        lane: Lane = "live" if place is None or place.lane is None else place.lane
        self.lane = own[0].keys.lane_name(lane) if waits else job.lane or job.queue
        self.pools = yard.pools_of(self.lane) or yard.pools_of(job.queue)
        names = {pool.name for pool in self.pools}
        self.reports: list[PoolReport] | None = None
        with suppress(BrokerError):
            self.reports = [report for report in facilities().pools.read_all() if report.pool in names]
        quieted = not in_outbox and any(report.state == QUIETED for report in self.reports or ())
        self.instructions = facilities().pools.read_quieted(self.reports or ()) if quieted else {}
        served = {lane_of_name(name)[0] for pool in self.pools for name in yard.served_by(pool)} | {job.queue}
        self.held, self.running = _held_and_running(job.id, leased(families(served)) if own else (), names)
        self.place = None if self.held is not None else place
        owner = "" if self.held is None else self.held.lease_owner.rpartition("/")[0]
        self.holder = holder_of(owner or job.worker)
        self.silent = silent_children(self.reports or ()).get((self.holder.member, self.holder.child))
        self.causes = _causes(self)
        self.wait, self.starts = _wait(self, self.causes), _starts(self, self.causes)

    @property
    def waited_ms(self) -> int:
        return sum(self.wait.values())

    @property
    def wait_parts(self) -> list[tuple[str, int]]:
        """The parts of its wait that took time, by their names."""
        return [(PARTS[name], ms) for name, ms in self.wait.items() if ms]

    @property
    def when(self) -> str:
        """Sentence of when it will start; "" where nobody knows."""
        if self.starts is None:
            return ""
        low, high = max(self.starts.earliest - self.at, 0), self.starts.latest
        day = "%Y-%m-%d %H:%M:%S"
        if high is None:
            return f"It starts not before {datetime_of(self.at + low):{day}} UTC, in {duration(low)}."
        if high - self.at < 1_000:
            return "It is expected to start within a second."
        return (
            f"It is expected to start in {duration(low)} to {duration(high - self.at)}, between "
            f"{datetime_of(self.at + low):%H:%M:%S} and {datetime_of(high):{day}} UTC."
        )

    @property
    def due_at(self) -> int | None:
        """Time for which it is scheduled; that of a message that is put off lies thousands of years ahead."""
        return self.job.next_attempt_at if self.place is None else self.place.due_at

    @property
    def taking(self) -> list[PoolReport]:
        """Supervisors that fetch."""
        return [report for report in self.reports or () if report.state == "up"]

    @property
    def pool_names(self) -> str:
        return ", ".join(pool.name for pool in self.pools)


def unfinished(job_id: str) -> Passport | None:
    """Return the passport of a job, also of one without a record, or ``None``."""
    if (known := passport_of(job_id)) is not None:
        return known
    job = find_untracked(job_id)
    return None if job is None else Passport(job, {}, (), (), None, (), history_away=False)


def why(known: Passport, *, arguments: bool = False, at: int | None = None) -> Why | None:
    """Return why a job has not run, or why it runs; ``None`` when it has ended.

    Args:
        arguments: Whether its reader may view arguments: the value by which an actor is paused is one.
        at: Time for which it is asked, ms since the epoch.
    """
    if known.job.ended:
        return None
    return Why(known, now_ms() if at is None else at, arguments=arguments)


def why_json(found: Why) -> dict[str, Any]:
    """Return the JSON form: times ISO 8601 in UTC, durations in ms."""
    starts = found.starts
    return {
        "id": found.job.id,
        "state": found.job.state,
        "causes": [{"code": each.code, "text": each.text, "until": iso_time(each.until)} for each in found.causes],
        "wait": {**found.wait, "total_ms": found.waited_ms},
        "starts": None if starts is None else {name: iso_time(at) for name, at in asdict(starts).items()},
    }


def _held_and_running(
    job_id: str, found: Sequence[SeenMessage] | Iterator[SeenMessage], pools: set[str]
) -> tuple[SeenMessage | None, list[Job]]:
    """Return the job as a worker holds it, and the jobs that run in slots of some pools."""
    held = {seen.id: seen for seen in found}
    records = records_of(list(held), queues=list({seen.queue for seen in held.values()}))
    running = []
    for seen in held.values():
        record = records.get(seen.id)
        # Where its worker is no pool's, nobody says whether it is in one of their slots.
        of_pool = holder_of(seen.lease_owner.rpartition("/")[0]).pool or next(iter(pools), "")
        if of_pool in pools and (record is None or record.state == "running"):
            running.append(record or job_of_message(seen.id, seen.queue, seen.body, due_at=None))
    return held.get(job_id), running


def _in_outbox(seen: Why) -> Iterator[Cause]:
    row = seen.outbox
    if row is None:
        return
    since = f"It waits in the outbox, for {duration(max(seen.at - row.created_ms, 0))}"
    if is_behind(row):
        yield Cause("outbox_order", f"{since}: an earlier job of its order, {row.order_key}, has not been sent.")
    elif seen.at - row.created_ms < RELAYED_MS:
        yield Cause("outbox", f"{since}: the process that committed it sends it now, or the relay within a second.")
    else:
        yield Cause(
            "outbox",
            f"{since}: the relay has not sent it. Its queue is full, the broker takes nothing, or no scheduler runs "
            "(manage.py switchyard doctor).",
        )


def _due_later(seen: Why) -> Iterator[Cause]:
    job, due = seen.job, seen.due_at
    if due is None or due <= seen.at or is_put_off(due):
        return
    when = f"{datetime_of(due):%Y-%m-%d %H:%M:%S} UTC, in {duration(max(due - seen.at, 0))}"
    deferred = str(job.options.get("deferred_by") or "")
    if "parked_ms" in job.options:
        yield Cause("parked", f"No worker can run it: {why_parked(job)}. Looked at again at {when}.", due, sure=False)
    elif deferred not in ("", "eta"):
        yield Cause(deferred, f"The {limit_words(deferred, job.actor)} of {job.actor} has it start at {when}.", due)
    elif job.attempts:
        error = f" with {job.error['type']}" if job.error else ""
        yield Cause("retry", f"Attempt {job.attempts} failed{error}: it is tried again at {when}.", due)
    else:
        yield Cause("scheduled", f"It was sent for later: it is due at {when}.", due)


def _put_off(seen: Why) -> Iterator[Cause]:
    if seen.place is None:
        return
    score = seen.place.due_at if is_put_off(seen.place.due_at) else None
    for pause in seen.place.pauses:
        in_force = pause.is_open if pause.calls is not None else not 0 < pause.until <= seen.at
        if not in_force or not stops_job(pause, seen.job):
            continue
        code = "circuit_open" if pause.is_open else "value_paused" if pause.argument else "actor_paused"
        named = pause.named if seen.arguments or not pause.argument else ""
        if pause.is_open:
            what = f"The circuit of {named.removeprefix(CIRCUIT) or 'such an argument'} is open"
        else:
            what = f"{named or f'{pause.actor} with such an argument'} is paused"
        text = f"{what}. {pause_facts(pause)}"
        yield Cause(code, text, pause.until or None, sure=not pause.is_open, since=_put_off_at(score, pause))


def _limited(seen: Why) -> Iterator[Cause]:
    job = seen.job
    for family in families([job.queue]) if seen.place is not None and job.reason in LIMITS else ():
        if (wait := wait_of(family, job.id)) is not None:
            code = "order" if wait.ordered else "concurrency"
            yield Cause(code, limit_sentence(wait, arguments=seen.arguments), since=wait.since_ms)


def limit_sentence(wait: LimitWait, *, arguments: bool) -> str:
    """Say the limit, who has its places, and since when a job waits for it; the value only where it may be seen."""
    actor, _, value = wait.key.partition(" ")
    of = f"{actor} with {value if arguments else 'such an argument'}" if value else actor
    before = f"{counted(wait.before, 'job')} before it" if wait.before else "none before it"
    since = f"since {datetime_of(wait.since_ms):%Y-%m-%d %H:%M:%S}"
    if wait.ordered:
        return f"It waits for its turn: {of} runs in the sequence of its sends, {before}, {since} UTC."
    taken = f"{wait.taken} of {wait.n} places taken"
    return f"It waits for a limit: {wait.n} of {of} at once, {taken}, {before}, {since} UTC."


def stops_job(pause: ActorPause, job: Job) -> bool:
    """Return whether a pause stops a job, by its arguments as the server compares them."""
    if not pause.stops(job.actor) or not pause.argument:
        return pause.stops(job.actor)
    position = pause.position if pause.calls is None else pause.calls.get(job.actor)
    value = job.kwargs.get(pause.argument)
    if value is None and position and position <= len(job.args):
        value = job.args[position - 1]
    # In Lua 1 is not true; in Python it is.
    return isinstance(value, bool) is isinstance(pause.value, bool) and bool(value == pause.value)


def _put_off_at(score: int | None, pause: ActorPause) -> int:
    """Return when a message was put off, by its place among those that are; else when the pause began."""
    if score is None:
        return pause.since
    if pause.calls is None:
        return score - PUT_OFF_MS if score < CIRCUITS_MS else pause.since
    offset = score - CIRCUITS_MS - pause.slot * CIRCUIT_SPAN_MS
    return pause.since + offset if 0 <= offset < CIRCUIT_SPAN_MS else pause.since


def _queue_paused(seen: Why) -> Iterator[Cause]:
    pause = None if seen.place is None else seen.place.pause
    if pause is not None and not (pause.until and pause.until <= seen.at):
        text = f"Its queue {seen.job.queue} is paused. {pause_facts(pause)}"
        yield Cause("queue_paused", text, pause.until, since=pause.since)


def _pools(seen: Why) -> Iterator[Cause]:
    if seen.held is not None or seen.job.state == "running" or seen.reports is None:
        return
    if seen.taking:
        yield from _all_silent(seen)
        return
    names, states = seen.pool_names, {report.state for report in seen.reports}
    if not seen.pools:
        yield Cause("no_pool", f"No pool of the topology serves {seen.lane}: add it to the queues of one.")
    elif QUIETED in states:
        told = next(iter(seen.instructions.values()), None)
        by = f" by {told.by}, {ago(datetime_of(told.at))}" if told is not None and told.by else ""
        reason = f" Reason: {told.reason}." if told is not None and told.reason else ""
        yield Cause("pool_quieted", f"Pool {names} takes no new work: it was quieted{by}.{reason}")
    elif not states:
        text = f"No supervisor of pool {names} reports: start it, manage.py switchyard runpool {seen.pools[0].name}."
        yield Cause("pool_down", text)
    elif "starting" in states:
        yield Cause("pool_starting", f"Pool {names} is starting.")
    elif "draining" in states:
        yield Cause("pool_draining", f"Pool {names} drains: it ends what runs and takes no new work, as in a deploy.")
    else:
        known = "the broker's keyspace is not the one that it knew (manage.py switchyard doctor)"
        yield Cause("pool_paused", f"Pool {names} is paused: {known}.")


def _all_silent(seen: Why) -> Iterator[Cause]:
    """Say which child keeps its pools from starting anything, where children that answer nothing have every slot."""
    slots = {pool.name: pool.slots for pool in seen.pools}
    silent = [(report, child) for report in seen.taking for child in report.silent]
    if silent and sum(slots[report.pool] for report, _ in silent) >= sum(report.slots for report in seen.taking):
        report, child = silent[0]
        text = (
            f"Child {child.pid} of {report.pool} on {report.host} has answered nothing for "
            f"{duration(child.silent_ms)}, and no other has a slot: nothing starts before its job ends or is killed."
        )
        yield Cause("silent", text)


def _held(seen: Why) -> Iterator[Cause]:
    job, holder, silent = seen.job, seen.holder, seen.silent
    if silent is not None:
        does = "runs" if job.id in silent.runs else "has fetched"
        child = f"Child {silent.pid} of {holder.pool} on {holder.host}"
        yield Cause("silent", f"{child} {does} it, and has answered nothing for {duration(silent.silent_ms)}.")
    elif job.state == "running":
        ran = "" if job.started_at is None else f" for {duration(max(seen.at - job.started_at, 0))}"
        yield Cause("running", f"It runs{ran}, on {job.holder.name or 'a worker'}.", stops=False)
    elif seen.held is not None:
        when = f"as soon as one of its slots is free. {_busy(seen)}"
        if seen.taking and not seen.running:
            when = "at once, or in a process of its own where it ended its worker before."
        text = f"{holder.name} has fetched it and starts it {when}"
        yield Cause("fetched", text.strip(), stops=False)


def _behind(seen: Why, *, is_held_back: bool) -> Iterator[Cause]:
    if seen.place is None or seen.place.lane is None:
        return
    if (ahead := seen.place.ahead) > 0:
        count = f"more than {ahead:,} jobs" if seen.place.more else counted(ahead, "job")
        first = ", the first of them " if ahead > seen.place.actors.total() else ": "
        of = f"{first}{most_common(seen.place.actors)}" if seen.place.actors else ""
        s = "s" if ahead == 1 else ""
        yield Cause("behind", f"{count} of {seen.lane} start{s} before it{of}. {_busy(seen)}".strip(), stops=False)
    elif not is_held_back and (slots := sum(report.slots for report in seen.taking)):
        if len(seen.running) >= slots:
            yield Cause("slots_busy", f"It is the next one. {_busy(seen)}", stops=False)
        else:
            yield Cause("next", "Nothing holds it back: a worker fetches it next.", stops=False)


def _busy(seen: Why) -> str:
    """Sentence of what holds the slots; "" where none are known."""
    slots = sum(report.slots for report in seen.taking)
    if not slots:
        return ""
    actors = Counter(job.actor for job in seen.running)
    with_ = f": {most_common(actors)}" if actors else ""
    return f"{min(len(seen.running), slots):,} of {counted(slots, 'slot')} of {seen.pool_names} are busy{with_}."


def _causes(seen: Why) -> list[Cause]:
    """Return the causes in the order in which a job meets them."""
    causes = [*_in_outbox(seen), *_due_later(seen), *_put_off(seen), *_limited(seen)]
    if seen.place is not None and seen.place.lane is None and not causes:
        causes.append(Cause("set_aside", "A purge has set it aside, from where it can be put back for a while."))
    causes += [*_queue_paused(seen), *_pools(seen), *_held(seen)]
    return [*causes, *_behind(seen, is_held_back=bool(causes))]


def why_parked(job: Job) -> str:
    """Return why no worker can run a parked job, and the remedy."""
    actor = dramatiq.get_broker().actors.get(job.actor)
    if actor is None:
        return (
            f"no running worker has an actor {job.actor!r}, and neither has this code: declare it in actors.py of an "
            "installed app (manage.py check sees a file that is not found), or write "
            f"@dramatiq.actor(actor_name={job.actor!r}) if it was renamed, then restart the pools"
        )
    # A record whose arguments were too long has none.
    wrong = misfit(actor.fn, len(job.args), job.kwargs.keys()) if job.args or job.kwargs else None
    if wrong is not None:
        if "too many positional" in wrong:
            wrong += "; a step of a pipeline gets the result of the step before it, unless it has pipe_ignore=True"
        return (
            f"its arguments do not fit this code: {wrong}. It is declared as "
            f"{job.actor}{signature_of(actor.fn)} at {place_of_code(actor.fn)}: change the actor and restart the "
            "pools, or cancel the job. After 10 minutes it becomes a dead letter"
        )
    return (
        f"no running worker has the actor {job.actor!r} as this code does ({place_of_code(actor.fn)}): restart the "
        "pools, which load code when they start; the job then runs by itself. After 10 minutes it becomes a dead letter"
    )


def _wait(seen: Why, causes: Sequence[Cause]) -> dict[str, int]:
    """Return the parts of the wait: they follow one another, so that their sum is the whole."""
    job = seen.job
    at = job.started_at if job.state == "running" and job.started_at is not None else seen.at
    began = at if job.enqueued_at is None else min(job.enqueued_at, at)
    if seen.outbox is not None:
        return dict.fromkeys(PARTS, 0) | {"outbox_ms": at - began}
    due_at = number_or_none(job.options.get("due_at")) or began
    delay = number_or_none(job.options.get("delay")) or 0
    if seen.due_at is not None and not is_put_off(seen.due_at):
        due_at = seen.due_at
    earlier = [each for each in seen.known.attempts if each.started_at is not None and began <= each.started_at < at]
    # A retry was scheduled when its attempt ended: the history, which knows that, may be a few seconds behind.
    ends = [due_at - delay if each.finished_at is None else each.finished_at for each in earlier]
    ended = min(max([began, *ends]), at)
    deferred = job.options.get("deferred_by") not in (None, "eta") or "parked_ms" in job.options
    away_ms = number_or_none(job.options.get("parked_ms")) or delay
    due = min(max(due_at, ended), at)
    from_ = min(max(ended, due_at - away_ms), due) if deferred else ended
    held = min([at, *(max(due, each.since) for each in causes if each.since is not None)])
    return {
        "attempts_ms": ended - began,
        "outbox_ms": 0,
        "scheduled_ms": 0 if deferred else due - ended,
        "put_off_ms": (due - from_ if deferred else 0) + at - held,
        "waiting_ms": (from_ - ended if deferred else 0) + held - due,
    }


def _starts(seen: Why, causes: Sequence[Cause]) -> Starts | None:
    """Return when a job starts; by the end of what stops it, its place, and the last starts of its lane."""
    stops = [each for each in causes if each.stops]
    if seen.job.state == "running" or seen.outbox is not None or any(each.until is None for each in stops):
        return None
    base = max([seen.at, *(each.until for each in stops if each.until is not None)])
    not_before = Starts(base, None) if stops else None
    put_off = any(each.since is not None and each.code != "queue_paused" for each in stops)
    if put_off or not all(each.sure for each in stops) or (seen.place is not None and seen.place.more):
        return not_before
    try:
        runs = recent_runs(seen.job.queue, seen.lane, seen.at)
    except DatabaseError:
        runs = []
    if seen.due_at is not None and seen.due_at > seen.at:
        waits = sorted(wait_ms for _, wait_ms in runs if wait_ms is not None)
        if len(waits) < LEAST_STARTS:
            return Starts(base, None)
        low, high = (waits[min(int(len(waits) * edge), len(waits) - 1)] for edge in EDGES)
        return Starts(base + low, base + high)
    last = causes[-1].code if causes else ""
    if seen.place is None or last not in ("behind", "slots_busy", "next", "queue_paused"):
        return not_before
    if last == "next":
        return Starts(base, base + 1_000)
    started = [started_at for started_at, _ in runs]
    started += [job.started_at for job in seen.running if job.started_at is not None and job.queue == seen.job.queue]
    found = expected(sorted(started), seen.place.ahead + 1, seen.at)
    return not_before if found is None else Starts(base + found[0], base + found[1])


def expected(started: Sequence[int], count: int, at: int) -> tuple[int, int] | None:
    """Return within which times from now, in ms, so many more starts are expected in nine of ten cases.

    A sum of gaps between starts has about a gamma distribution (Wilson and Hilferty's cube of a normal one). Its
    variance is that of sums of gaps that lie beside one another, as slots that end together start together; that of the
    measured mean comes on top. The time since the last start is over already.

    Args:
        started: Times of the last starts, ms since the epoch, in order.

    Returns:
        ``None`` for fewer than eight starts, and where the last one is longer ago than such a rate would let it be.
    """
    gaps = len(started) - 1
    if gaps < LEAST_STARTS or (whole := started[-1] - started[0]) <= 0:
        return None
    passed = max(at - started[-1], 0)
    sums = sorted(started[place + count] - started[place] for place in range(max(gaps - count + 1, 0)))
    longer = [each for each in sums if each > passed]
    if len(longer) >= SEEN_SUMS and gaps >= SEEN_SUMS * count:
        low, high = (longer[min(int(len(longer) * edge), len(longer) - 1)] for edge in EDGES)
        return low - passed, high - passed
    width = max(1, min(count, gaps // 4))
    sums = [started[place + width] - started[place] for place in range(gaps - width + 1)]
    one = max(pvariance(sums) / width * gaps / (gaps - width), 1.0)
    mean = whole / gaps * count
    ninth = one * (count + count * count / gaps) / (9 * mean * mean)
    over = NORMAL.cdf(((passed / mean) ** (1 / 3) - 1 + ninth) / math.sqrt(ninth))
    if over > STALLED:
        return None
    found = []
    for edge in EDGES:
        part = min(max(over + (1 - over) * edge, 1e-9), 1 - 1e-9)
        cube = max(1 - ninth + math.sqrt(ninth) * NORMAL.inv_cdf(part), 0.0) ** 3
        found.append(max(int(mean * cube) - passed, 0))
    return found[0], found[1]
