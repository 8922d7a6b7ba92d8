"""Pages of the list of jobs, newest first: what has not ended from the broker, what has from the history."""

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
from django.db import DatabaseError

from switchyard.broker.admin.browse import AT_ONCE, ComparedFields, SeenMessage, compared_fields_of, look_through
from switchyard.broker.admin.scheduled import next_due
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.stores.job_record import Job, job_of_message
from switchyard.history.filters import Filter, search_text
from switchyard.history.models import JobRow
from switchyard.history.queries import Cursor, job_of_row, search, time_column
from switchyard.jobs.queries import asked_families, records_of
from switchyard.loggers import get_logger
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import shown_arguments

LIMIT = 50


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of the list.

    Args:
        after: Cursor of the next page; "" at the end of the list.
        cut: Queues that hold more messages than were looked through.
        away: Queues that are away or start nothing: what has not ended there is missing.
        broker_error, history_error: The reason for which what has not ended, or what has, is missing.
        by_due_time: The next to be due is first.
    """

    jobs: tuple[Job, ...]
    after: str
    cut: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    broker_error: str = ""
    history_error: DatabaseError | None = None
    by_due_time: bool = False


UNFINISHED: Final = frozenset({"scheduled", "queued", "running", "retrying"})
# State -> places in which its jobs are.
_PLACES: Final = {
    "queued": {"waiting", "leased"},
    "scheduled": {"scheduled"},
    "retrying": {"waiting", "scheduled"},
    "running": {"leased"},
}


PLAIN: Final = re.compile(r"[A-Za-z0-9_.:@ -]+")


class Unfinished(NamedTuple):
    """A job of the broker that matches a filter; ``at`` is the time of its enqueueing."""

    at: int
    id: str
    state: str
    seen: SeenMessage


def comparison_of(wanted: Filter) -> Callable[[bytes], int | None]:
    """Return a comparison of messages with a filter, but for their queues and states.

    It returns when a message that matches was enqueued; ``None`` for one that does not, or is no message.
    """
    since, until = wanted.since_ms or 0, LARGEST if wanted.until_ms is None else wanted.until_ms
    compares = bool(wanted.actor or wanted.owner or wanted.parent or wanted.tag or wanted.argument)

    def time_of(body: bytes) -> int | None:
        fields = compared_fields_of(body)
        if fields is None:
            return None
        at = fields.options.enqueued_at or fields.sent_at
        return at if since <= at < until and not (compares and not _matches(fields, wanted)) else None

    return time_of


def wants_unfinished(wanted: Filter) -> bool:
    """Return whether jobs that have not ended can match a filter: they have no release, last failure or whole wait."""
    ended = wanted.failures or wanted.error or wanted.fingerprint or wanted.release or wanted.waited or wanted.ran
    return not ended and (not wanted.states or not UNFINISHED.isdisjoint(wanted.states))


def unfinished_jobs(
    wanted: Filter, *, before: tuple[int, str] | None = None, limit: int, among: Container[str] = ()
) -> tuple[list[Unfinished], set[str], list[str], tuple[str, ...]]:
    """Return the newest jobs that match among the first 10,000 messages of each queue.

    Beside them the ids of those ``among`` that match, wherever they are in the list; the queues that hold more messages
    than that; and those that are away or start nothing.

    Args:
        before: Time of enqueueing and id of a job; those that follow it in the list are returned.
    """
    states = UNFINISHED & set(wanted.states) if wanted.states else UNFINISHED
    places = frozenset().union(*(_PLACES[state] for state in states))
    asked, away = asked_families(wanted.queue)
    names = [family.keys.queue for family in asked]
    looked = look_through(asked, places=places)
    held = [seen.id for seen in looked.messages if seen.place == "leased"]
    known = dict(zip(held, facilities().records.states(held, queues=names, partly=True), strict=True)) if held else {}
    time_of, any_state = comparison_of(wanted), states == UNFINISHED
    found: list[tuple[int, str, int]] = []
    also: set[str] = set()
    for place, seen in enumerate(looked.messages):
        if (at := time_of(seen.body)) is None or not (any_state or _state(seen, known) in states):
            continue
        if seen.id in among:
            also.add(seen.id)
        if before is None or (at, seen.id) < before:
            found.append((at, seen.id, place))
    # Most are in order as they come, which sorting uses.
    found.sort(reverse=True)
    newest = [(at, looked.messages[place]) for at, _, place in found[:limit]]
    jobs = [Unfinished(at, seen.id, _state(seen, known), seen) for at, seen in newest]
    return jobs, also, looked.cut, away


def jobs_of(found: list[Unfinished], wanted: Filter) -> list[Job]:
    """Return jobs of a list by their records; those that keep none by their messages.

    A waiting job that was cancelled, or has ended meanwhile, is so although its message is still there; it is left out
    when the filter names other states.
    """
    records = records_of([each.id for each in found], queues=sorted({each.seen.queue for each in found}))
    jobs = []
    for each in found:
        seen = each.seen
        job = records.get(each.id) or job_of_message(seen.id, seen.queue, seen.body, due_at=seen.due_at)
        worker = seen.lease_owner.rpartition("/")[0] or job.worker
        jobs.append(replace(job, state=job.state if job.ended else each.state, worker=worker, at=each.at))
    return [job for job in jobs if not wanted.states or job.state in wanted.states]


def _state(seen: SeenMessage, known: Mapping[str, str | None]) -> str:
    if seen.place == "leased":
        return "running" if known.get(seen.id) in ("running", None) else "queued"
    if seen.lane == "retry":
        return "retrying"
    return "scheduled" if seen.place == "scheduled" else "queued"


def _matches(fields: ComparedFields, wanted: Filter) -> bool:
    if wanted.actor and fields.actor != wanted.actor:
        return False
    if wanted.owner and fields.options.owner != wanted.owner:
        return False
    if wanted.parent and fields.options.parent != wanted.parent:
        return False
    if wanted.tag:
        tags = msgspec.json.decode(fields.options.tags)
        if not isinstance(tags, list) or wanted.tag not in map(str, tags):
            return False
    if wanted.argument is not None:
        name, value = wanted.argument
        # Without the value in the body there is nothing to read.
        if _is_plain(value) and value.encode() not in bytes(fields.args) + bytes(fields.kwargs):
            return False
        found = _arguments_of(fields).get(name)
        return found != HIDDEN and search_text(found) == search_text(value)
    return True


def _arguments_of(fields: ComparedFields) -> dict[str, Any]:
    try:
        args, kwargs = msgspec.json.decode(fields.args, type=list), msgspec.json.decode(fields.kwargs, type=dict)
    except msgspec.MsgspecError:
        return {}
    return shown_arguments(fields.actor, args, kwargs)


@lru_cache(maxsize=16)
def _is_plain(value: str) -> bool:
    """Return whether JSON writes a value as it is. Numbers of other characters than digits have several forms."""
    if value.isascii() and value.isalnum():
        return True
    try:
        float(value)
    except ValueError:
        return PLAIN.fullmatch(value) is not None
    return False


# Messages that one page looks through where a filter compares them.
LOOKED_THROUGH: Final = 10_000
_PLACE: Final = re.compile(r"due\.([0-9]{1,15})\.(.{1,200})", re.DOTALL)


def is_by_due_time(wanted: Filter) -> bool:
    """Return whether a list is ordered by due time: one of scheduled jobs alone."""
    return wanted.states == ("scheduled",) and wants_unfinished(wanted)


def scheduled_jobs(wanted: Filter, *, after: str = "", limit: int) -> JobsPage:
    """Return a page of the scheduled jobs that match a filter, the next to be due first, as of :func:`find_jobs`."""
    time_of = comparison_of(wanted)
    start: tuple[int, str] | None = None
    if after:
        if (place := _PLACE.fullmatch(after)) is None:
            fact = f"after: {after!r:.100} is not a place in a list of scheduled jobs"
            raise ValueError(f"{fact}; begin with its first page")
        start = int(place[1]), place[2]
    found: list[Unfinished] = []
    looked, last = 0, start
    count = AT_ONCE if replace(wanted, states=(), queue="") else limit + 1
    try:
        asked, away = asked_families(wanted.queue)
        walk = next_due(asked, after=start, count=count)
        while len(found) <= limit and looked < LOOKED_THROUGH and (seen := next(walk, None)) is not None:
            looked += count
            for message in seen:
                last = (message.due_at or 0, message.id)
                if (at := time_of(message.body)) is not None:
                    found.append(Unfinished(at, message.id, "scheduled", message))
        is_over = looked < LOOKED_THROUGH and len(found) <= limit
        chosen = found[:limit]
        jobs = jobs_of(chosen, wanted)
    except BrokerError as error:
        return JobsPage((), "", broker_error=str(error), by_due_time=True)
    if len(found) > limit:
        last = (chosen[-1].seen.due_at or 0, chosen[-1].id)
    following = "" if is_over or last is None else "due.{}.{}".format(*last)
    return JobsPage(tuple(jobs), following, away=away, by_due_time=True)


log = get_logger(__name__)
# Places in the history and in the broker after which the next page goes on, each empty at its beginning.
END: Final = "-"
_CURSOR: Final = re.compile(r"(-|[0-9]{1,15}-[0-9]{1,18}|)~(-|[0-9]{1,15}\..{1,200}|)", re.DOTALL)


def find_jobs(wanted: Filter, *, after: str = "", limit: int = LIMIT) -> JobsPage:
    """Return a page of the jobs that match a filter, newest first; of scheduled jobs alone the next to be due first.

    Args:
        after: Cursor of the page before.

    Raises:
        ValueError: the cursor is none of such a list.
    """
    if is_by_due_time(wanted):
        return scheduled_jobs(wanted, after=after, limit=limit)
    if (found := _CURSOR.fullmatch(after or "~")) is None:
        raise ValueError(f"after: {after!r:.100} is not a place in a list; begin with its first page")
    next_ended, next_live = found.groups()
    rows, ended_to, history_error = _ended(wanted, next_ended, limit)
    live: list[Unfinished] = []
    also: set[str] = set()
    cut: list[str] = []
    away: tuple[str, ...] = ()
    broker_error = ""
    if next_live != END and wants_unfinished(wanted):
        at, _, job_id = next_live.partition(".")
        before = (int(at), job_id) if at else None
        try:
            ids = {row.job_id for row in rows}
            live, also, cut, away = unfinished_jobs(wanted, before=before, limit=limit + 1, among=ids)
        except BrokerError as error:
            broker_error = str(error)
    # A job that was requeued is listed as it stands, once.
    timed = [(getattr(row, time_column(wanted)), row) for row in rows if row.job_id not in also]
    # The rest of the history is not known yet: unfinished jobs that are older come with a later page.
    known_to = ended_to.at if ended_to is not None else 0
    older = [(job.at, job) for job in live if job.at >= known_to]
    both: list[tuple[int, Unfinished | JobRow]] = [*older, *timed]
    chosen = sorted(both, key=itemgetter(0), reverse=True)[:limit]
    taken_live = [entry for _, entry in chosen if isinstance(entry, Unfinished)]
    taken_rows = [(at, entry) for at, entry in chosen if isinstance(entry, JobRow)]
    try:
        jobs = {job.id: job for job in jobs_of(taken_live, wanted)}
    except BrokerError as error:
        broker_error, jobs = str(error), {}
    if len(taken_rows) == len(timed):
        next_ended = END if ended_to is None else str(ended_to)
    elif taken_rows:
        next_ended = str(Cursor(taken_rows[-1][0], taken_rows[-1][1].pk))
    if len(taken_live) == len(live):
        next_live = END
    elif taken_live:
        next_live = f"{taken_live[-1].at}.{taken_live[-1].id}"
    jobs |= {row.job_id: replace(job_of_row(row), at=at) for at, row in taken_rows}
    in_order = [entry.id if isinstance(entry, Unfinished) else entry.job_id for _, entry in chosen]
    return JobsPage(
        jobs=tuple(jobs[id_] for id_ in in_order if id_ in jobs),
        after="" if next_ended == next_live == END else f"{next_ended}~{next_live}",
        cut=tuple(cut),
        away=away,
        broker_error=broker_error,
        history_error=history_error,
    )


def _ended(wanted: Filter, after: str, limit: int) -> tuple[list[JobRow], Cursor | None, DatabaseError | None]:
    """Return rows of the history after a place, where it goes on, and why it cannot be read."""
    is_any = bool(not wanted.states or wanted.failures or wanted.error or wanted.fingerprint)
    if not is_any:
        wanted = replace(wanted, states=tuple(state for state in wanted.states if state not in UNFINISHED))
    if after == END or not (wanted.states or is_any):
        return [], None, None
    try:
        return (*search(wanted, after=Cursor.parse(after) if after else None, limit=limit), None)
    except DatabaseError as error:
        log.warning("the list of jobs lacks the history: the database cannot be read", error=str(error))
        return [], None, error
