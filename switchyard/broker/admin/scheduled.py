"""Scheduled messages: walked in the order of their due times, changed, started; and cancellation of jobs anywhere."""

import logging
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from dramatiq.message import Message

from switchyard.broker.admin.browse import AT_ONCE, Listed, SeenMessage, entries_of, with_bodies
from switchyard.broker.clock import TOLERATED_MS, is_put_off
from switchyard.broker.interface import Arguments, Facilities
from switchyard.broker.keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import NO_RECORD, CancelRecord, QueueOperations, owners_of
from switchyard.broker.redis.own_keys import moment, utf8
from switchyard.broker.stores.history_streams import ended_step
from switchyard.broker.stores.job_record import Job, cancelled_job
from switchyard.broker.stores.job_records import JobRecords

# Lanes in which a scheduled message has not failed yet.
FIRST_ATTEMPTS: Final[tuple[Lane, ...]] = ("live", "alone")
logger = logging.getLogger(__name__)


def next_due(
    families: Sequence[QueueOperations],
    *,
    after: tuple[int, str] | None,
    count: int,
    lanes: Sequence[Lane] = FIRST_ATTEMPTS,
) -> Iterator[list[SeenMessage]]:
    """Yield scheduled messages of all families, the next to be due first, at most ``count`` at a time.

    Each schedule is a sorted set: the first messages cost few round trips however many there are. Reads go on by due
    time and id, so that messages which start meanwhile move no other one past the reader. A message that is gone by the
    time its body is read is left out. The walk begins behind ``after``: a due time (ms since the epoch) and an id.
    """
    schedules = [_Schedule(family, lane) for family in families for lane in lanes]
    if not schedules:
        return
    start = None if after is None else (after[0], after[1].encode())
    first = families[0].calls.look([schedule.read(start, 0, count + 1) for schedule in schedules])
    walks = [schedule.walk(answer, start, count + 1) for schedule, answer in zip(schedules, first, strict=True)]
    entries = merge(*walks, key=_order)
    while chunk := list(islice(entries, count)):
        yield with_bodies(chunk)


def _order(entry: Listed) -> tuple[int, bytes]:
    """Return a place in the server's order of a schedule: by time, then by id."""
    return entry.due_at or 0, entry.id


class _Schedule:
    def __init__(self, family: QueueOperations, lane: Lane) -> None:
        self.family, self.lane = family, lane
        self.key = family.keys.due(lane)

    def read(self, start: tuple[int, bytes] | None, skipped: int, count: int) -> tuple[str | int, ...]:
        """Return the command that continues at a time, and skips the entries of that time which were read."""
        since = "-inf" if start is None else start[0]
        return ("ZRANGEBYSCORE", self.key, since, "+inf", "WITHSCORES", "LIMIT", skipped, count)

    def walk(self, answer: list[bytes], start: tuple[int, bytes] | None, count: int) -> Iterator[Listed]:
        """Yield what an answer and the ones after it hold, behind the start."""
        last, searched = start, False
        while True:
            before, found = last, entries_of(self.family, self.lane, "scheduled", answer)
            for entry in found:
                if last is None or _order(entry) > last:
                    last = _order(entry)
                    yield entry
            if len(found) < count or last is None or (searched and last == before):
                return
            # Of the same time, those that were read stand before the others.
            searched, count = True, AT_ONCE
            answer = self.family.calls.command(*self.read(last, self._tied_before(*last), count))

    def _tied_before(self, due_at: int, id_: bytes) -> int:
        """Return how many ids it has at a time up to an id: a search by halves, in few round trips.

        A hundred thousand messages may be due in the same millisecond, such as those that are sent for midnight.
        """
        command = self.family.calls.command
        low, high = 0, int(command("ZCOUNT", self.key, due_at, due_at))
        while low < high:
            middle = (low + high) // 2
            found = command("ZRANGEBYSCORE", self.key, due_at, due_at, "LIMIT", middle, 1)
            low, high = (middle + 1, high) if found and found[0] <= id_ else (low, middle)
        return low


Answer = Literal["amended", "started", "waiting", "changed", "unknown"]
# Answers of the script that are final; after the others it is called anew, with what is there now.
_ANSWERS: Final[dict[int, Answer]] = {1: "amended", 0: "started", -1: "unknown", -4: "waiting"}


def amend(
    families: Sequence[QueueOperations],
    message_id: str,
    *,
    expected: Arguments,
    arguments: Arguments,
    due_at_ms: int | None = None,
) -> Answer:
    """Give a message that waits or is scheduled other arguments, and a scheduled one another due time, in one step.

    Its options, and with them its unique key, stay as they are. After ``BrokerUnavailable`` it may be changed.

    Args:
        families: Of the queues that may hold it.
        expected: Arguments that it has; with others it was changed meanwhile, and stays so.
        arguments: JSON values.
        due_at_ms: ms since the epoch; ``None`` to leave it.

    Returns:
        ``amended``; ``started``: a worker holds it; ``waiting``: it has no due time to change any more; ``changed``: it
        has other arguments than ``expected``; ``unknown``: no queue has it, or it cannot be read.
    """
    for family in families:
        while (as_read := family.calls.command("HGET", family.keys.bodies, message_id)) is not None:
            try:
                message = codec.decode(as_read, message_id=message_id, lane=family.keys.queue)
            except codec.UnreadableMessage:
                return "unknown"
            if (list(message.args), message.kwargs) != (list(expected[0]), dict(expected[1])):
                return "changed"
            if due_at_ms is not None:
                message.options["due_at"] = due_at_ms
                message.options.pop("delay", None)  # the time does not follow from it any more
            body = codec.encode(message.copy(args=tuple(arguments[0]), kwargs=arguments[1]), grown=True)
            found = administration.amend(family, message_id, as_read=as_read, body=body, due_at_ms=due_at_ms)
            if (answer := _ANSWERS.get(found)) is not None:
                return answer
    return "unknown"


def pull_forward(family: QueueOperations) -> int:
    """Have messages that a clock ahead of now has delayed due a delay after now; return their number.

    Reads the schedules only after a sweep has noted that the server's clock was set back.
    """
    if not family.calls.command("HEXISTS", family.keys.notes, "ahead"):
        return 0
    done = 0
    for page in next_due([family], after=None, count=AT_ONCE, lanes=ALL_LANES):
        now = int(family.calls.command("TIME")[0]) * 1000  # read after the page: what it holds was delayed before
        for seen in page:
            if (message := seen.message) is None or is_put_off(seen.due_at):
                continue
            delay, same = message.options.get("delay"), (list(message.args), message.kwargs)
            if type(delay) is int and (seen.due_at or 0) - delay > now + TOLERATED_MS:
                done += amend([family], seen.id, expected=same, arguments=same, due_at_ms=now + delay) == "amended"
    family.calls.command("HDEL", family.keys.notes, "ahead")
    logger.warning("queue %s: the server's clock was ahead; %d due times are corrected", family.keys.queue, done)
    return done


# Put off for a reason that lasts: a worker would put it off again.
PUT_OFF: Final = ("actor_paused", "circuit_open", "concurrency", "order", "fair_share")
HELD: Final = ("rate_limit", "parked", *PUT_OFF)


def run_now(facilities: Facilities, job_id: str) -> str:
    """Make a scheduled job, or one that waits for its retry, due at once. No attempt is spent.

    Returns:
        ``due``: it starts as soon as a slot is free; ``waiting``: it waits or runs already; ``held``: a rate limit
        holds it, no worker knows its actor, its actor is paused, the circuit of what it calls is open, or other jobs
        have the places of its limit; ``ended``;
        ``unknown``: no job has the id, or it cannot be found.
    """
    record = facilities.records.read(job_id)
    if record is not None and (record.ended or record.end_recorded):
        return "ended"
    held = HELD if record is not None and record.state == "scheduled" else PUT_OFF
    if record is not None and record.reason in held:
        return "held"
    first = record.queue if record is not None else ""
    # Its own queue first, then the others: it may have been relocated meanwhile.
    for queue in sorted(facilities.records.queues, key=lambda name: name != first):
        answer = facilities.transport.due_now(queue, job_id)
        if answer != "unknown":
            return answer
    return "unknown"


def state_counts(families: Sequence[QueueOperations], records: JobRecords) -> dict[str, int]:
    """Return how many messages are ``queued``, ``scheduled``, ``retrying`` and ``running``, as in the list of jobs.

    A message that a worker has fetched and not started is queued. A waiting one that was cancelled counts until it is
    dropped.
    """
    counts = dict.fromkeys(("queued", "scheduled", "retrying", "running"), 0)
    if not families:
        return counts
    calls = families[0].calls
    places = [place for family in families for place in _places(family.keys)]
    leases = [("ZRANGE", family.keys.leases, 0, -1) for family in families]
    answers = calls.look([*((command, key) for _, command, key in places), *leases])
    owners = answers[len(places) :]
    for (state, _, _), length in zip(places, answers, strict=False):
        counts[state] += length
    holds = [
        family.keys.hold(owner)
        for family, found in zip(families, owners, strict=True)
        for owner in owners_of(found, family.keys.leases)
    ]
    held = [utf8(id_) for found in calls.look([("HKEYS", hold) for hold in holds]) for id_ in found]
    queues = [family.keys.queue for family in families]
    for known in records.states([id_ for id_ in held if id_ != "#"], queues=queues, partly=True):
        counts["running" if known in ("running", None) else "queued"] += 1
    return counts


def _places(keys: QueueKeys) -> list[tuple[str, str, str]]:
    """Return the lists and schedules of a family: state of their messages, command that counts them, key."""
    found = []
    for lane in ALL_LANES:
        waits, later = ("queued", "scheduled") if lane in FIRST_ATTEMPTS else ("retrying", "retrying")
        found += [(waits, "LLEN", key) for key in keys.waiting(lane)]
        found.append((later, "ZCARD", keys.due(lane)))
    return found


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step; also one without a record.

    Returns:
        ``unknown`` (a job without a record may have ended), ``ended`` (too late), ``asked`` (a worker holds it) or
        ``cancelled`` (it never starts).
    """
    record = facilities.records.read(job_id)
    if record is None:
        return _cancel(facilities, job_id)
    if record.end_recorded:
        return "ended"
    place = _cancel(facilities, job_id, record.queue, _end_of(facilities.records, record))
    recorded = place == "cancelled" and facilities.transport.finds_waiting
    answer = facilities.records.cancel(job_id, place=place, known=record, row=not recorded)
    if answer != "unknown":
        return answer
    return "unknown" if (now := facilities.records.read(job_id)) is None or not now.ended else "ended"


def _cancel(facilities: Facilities, job_id: str, queue: str = "", end: CancelRecord = NO_RECORD) -> str:
    """Ask the queue that has the job, then the others: it may have been relocated meanwhile."""
    names = [name for name in facilities.records.queues if name != queue]
    for name in [queue, *names] if queue else names:
        answer = facilities.transport.cancel(name, job_id, end=end)
        if answer in ("cancelled", "asked"):
            return answer
    return "unknown"


def _end_of(records: JobRecords, known: Job) -> CancelRecord:
    """Return the cancellation of a job, recorded with its message: a kill comes before both or after both."""
    share = records.limits.records_bytes // max(len(records.queues), 1)
    record = ended_step(known.queue, cancelled_job(known)).record
    return CancelRecord(record, records.limits.ended_ms, share, records.history_share)


def find_unrecorded(facilities: Facilities, job_id: str) -> Message[Any] | None:
    """Return the message of a job that keeps no record, while it waits, is scheduled or runs; one command a queue.

    Its ``queue_name`` is that of its queue, also when it is in the retry lane.
    """
    found = (facilities.transport.find_message(queue.name, job_id) for queue in facilities.yard.queues)
    return next((message for message in found if message is not None), None)


class Stop(NamedTuple):
    """A list of a family that a walk reads; ``level`` is the priority of a waiting list, 1 to 3, else 0."""

    place: Literal["scheduled", "waiting", "leased"]
    lane: Lane
    level: int = 0


STOPS: Final = (
    *(Stop("scheduled", lane) for lane in ALL_LANES),
    *(Stop("waiting", lane, level) for lane in ALL_LANES for level in (1, 2, 3)),
    Stop("leased", "live"),
)


def look(
    family: QueueOperations, stop: Stop, after: list[Any] | None, limit: int
) -> tuple[list[SeenMessage], list[Any] | None]:
    """Return a page of the messages of a list that can be read and whose cancellation nobody has requested.

    ``after`` is the place that the page before returned; ``None`` at the beginning of the list, and at its end.
    """
    if stop.place == "waiting":
        ids, following = _waiting(family, stop, after, limit)
    elif stop.place == "scheduled":
        ids, following = _scheduled(family, stop.lane, after, limit)
    else:
        ids, following = _running(family, after, limit)
    notes = [note + id_ for id_ in ids for note in (b"cancel:", b"asked:")]
    noted = family.calls.command("HMGET", family.keys.notes, *notes) if notes else []
    asked = [any(note is not None for note in pair) for pair in zip(noted[::2], noted[1::2], strict=True)]
    left = [Listed(family, stop.lane, stop.place, id_) for id_, gone in zip(ids, asked, strict=True) if not gone]
    return [seen for seen in with_bodies(left) if seen.message is not None], following


def state_of(seen: SeenMessage) -> str:
    """Return the state of a message on the walk, as in job records."""
    if seen.place == "leased":
        return "running"
    if seen.message is not None and int(seen.message.options.get("attempts", 0)) > 0:
        return "retrying"
    return "scheduled" if seen.place == "scheduled" else "queued"


def count(family: QueueOperations) -> int:
    """Return how many messages wait, are scheduled or run."""
    return int(family.calls.command("HLEN", family.keys.bodies))


def _waiting(family: QueueOperations, stop: Stop, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read a list from its tail: messages leave it at the head, and new ones only push the others onward."""
    passed = after[0] if after else 0
    key = family.keys.waiting(stop.lane)[stop.level - 1]
    ids: list[bytes] = family.calls.command("LRANGE", key, -passed - limit, -passed - 1)
    return ids[::-1], [passed + len(ids)] if len(ids) == limit else None


def _scheduled(family: QueueOperations, lane: Lane, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read the scheduled ones from the latest: they leave the set at the earliest."""
    key = family.keys.due(lane)
    start = 0
    if after:
        rank = family.calls.command("ZREVRANK", key, after[1])
        start = int(family.calls.command("ZCOUNT", key, f"({after[0]}", "+inf")) if rank is None else rank + 1
    answer = family.calls.command("ZREVRANGE", key, start, start + limit - 1, "WITHSCORES")
    ids = answer[::2]
    if len(ids) < limit:
        return ids, None
    return ids, [moment(answer[-1]), utf8(ids[-1])]


def _running(family: QueueOperations, after: Sequence[Any] | None, limit: int) -> tuple[list[bytes], Any]:
    """Read leases by their tokens, which grow."""
    passed = after[0] if after else -1
    leases = [(int(lease.token), lease.id) for owner in family.owners() for lease in family.held(owner)]
    chosen = sorted(pair for pair in leases if pair[0] > passed)[:limit]
    return [id_ for _, id_ in chosen], [chosen[-1][0]] if len(chosen) == limit else None
