"""Jobs that have not ended, as the broker holds them: what waits, is scheduled, is retried, runs."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.admin.look_through import (
    ComparedFields,
    SeenMessage,
    SentFields,
    compared_fields_of,
    fields_of,
    look_through,
)
from switchyard.broker.interface import facilities
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.stores.job_records import JobRecord
from switchyard.history.filters import Filter
from switchyard.history.search_values import search_text
from switchyard.jobs.listing.lines import LONGEST_ERROR, JobLine
from switchyard.jobs.running import arguments_of, asked_families, holder_of, records_of
from switchyard.middleware.redaction import HIDDEN

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


class UnfinishedJobs(NamedTuple):
    """Jobs that match, newest first.

    Args:
        cut: Queues that hold more than was looked through.
        away: Queues that are away or start nothing; their jobs are missing.
        also: Ids of those that were asked for, wherever they are in the list.
    """

    jobs: list[Unfinished]
    cut: list[str]
    also: set[str]
    away: tuple[str, ...] = ()


class Comparison:
    """Comparison of messages with a filter, but for their states. True when there is anything to compare."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._since, self._until = wanted.since_ms or 0, LARGEST if wanted.until_ms is None else wanted.until_ms
        self._compares = bool(wanted.actor or wanted.owner or wanted.parent or wanted.tag or wanted.argument)
        self._is_any = not self._compares and not wanted.since and not wanted.until

    def __bool__(self) -> bool:
        return not self._is_any

    def time_of(self, body: bytes) -> int | None:
        """Return when a message that matches was enqueued; ``None`` for one that does not, or is no message."""
        fields = compared_fields_of(body)
        if fields is None:
            return None
        at = fields.options.enqueued_at or fields.sent_at
        if not self._since <= at < self._until or (self._compares and not _matches(fields, self._wanted)):
            return None
        return at


def wants_unfinished(wanted: Filter) -> bool:
    """Return whether jobs that have not ended can match a filter: they have no release and no last failure."""
    ended = wanted.failures or wanted.error or wanted.fingerprint or wanted.release
    return not ended and (not wanted.states or not UNFINISHED.isdisjoint(wanted.states))


def wanted_of_history(wanted: Filter) -> Filter | None:
    """Return the filter of what has ended; ``None`` when nothing of it can match."""
    if wanted.failures or wanted.error or wanted.fingerprint or not wanted.states:
        return wanted
    ended = tuple(state for state in wanted.states if state not in UNFINISHED)
    return replace(wanted, states=ended) if ended else None


def unfinished_jobs(
    wanted: Filter, *, before: tuple[int, str] | None = None, limit: int, among: Container[str] = ()
) -> UnfinishedJobs:
    """Return the newest jobs that match among the first 10,000 messages of each queue.

    Args:
        before: Time of enqueueing and id of a job; those that follow it in the list are returned.
        limit: Jobs at most.
        among: Ids of which the answer says whether they match.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    states = UNFINISHED & set(wanted.states) if wanted.states else UNFINISHED
    places = frozenset().union(*(_PLACES[state] for state in states))
    asked, away = asked_families(wanted.queue)
    names = [family.keys.queue for family in asked]
    looked = look_through(asked, places=places)
    held = [seen.id for seen in looked.messages if seen.place == "leased"]
    known = dict(zip(held, facilities().records.states(held, queues=names), strict=True)) if held else {}
    comparison, any_state = Comparison(wanted), states == UNFINISHED
    found: list[tuple[int, str, int]] = []
    also: set[str] = set()
    for place, seen in enumerate(looked.messages):
        if (at := comparison.time_of(seen.body)) is None or not (any_state or _state(seen, known) in states):
            continue
        if seen.id in among:
            also.add(seen.id)
        if before is None or (at, seen.id) < before:
            found.append((at, seen.id, place))
    # Most are in order as they come, which sorting uses.
    found.sort(reverse=True)
    newest = [(at, looked.messages[place]) for at, _, place in found[:limit]]
    jobs = [Unfinished(at, seen.id, _state(seen, known), seen) for at, seen in newest]
    return UnfinishedJobs(jobs, looked.cut, also, away)


def lines_of(jobs: list[Unfinished], wanted: Filter, *, arguments: bool) -> list[JobLine]:
    """Return jobs as lines of a list, with what their records know of the ones that were started.

    A waiting job that was cancelled, or has ended meanwhile, is ``cancelled`` although its message is still there; it
    is left out when the filter names other states.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    records = records_of([job.id for job in jobs], queues=sorted({job.seen.queue for job in jobs}))
    lines = [_line(job, records.get(job.id), arguments=arguments) for job in jobs]
    return [line for line in lines if not wanted.states or line.state in wanted.states]


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
    if wanted.tag and wanted.tag not in _tags(msgspec.json.decode(fields.options.tags)):
        return False
    if wanted.argument is not None:
        name, value = wanted.argument
        # Without the value in the body there is nothing to read.
        if _is_plain(value) and value.encode() not in bytes(fields.args) + bytes(fields.kwargs):
            return False
        found = (arguments_of(fields) or {}).get(name)
        return found != HIDDEN and search_text(found) == search_text(value)
    return True


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


def _line(job: Unfinished, record: JobRecord | None, *, arguments: bool) -> JobLine:
    fields = fields_of(job.seen.body) or SentFields("", job.at)
    options = fields.options
    line = JobLine(
        id=job.id,
        state=job.state,
        actor=fields.actor,
        queue=job.seen.queue,
        at=job.at,
        is_live=True,
        owner=str(options.get("owner") or ""),
        tags=_tags(options.get("tags")),
        attempts=_number(options.get("attempts")) or 0,
        reason=str(options.get("deferred_by") or ""),
        enqueued_at=job.at,
        due_at=job.seen.due_at,
        worker=holder_of(job.seen.lease_owner).name if job.seen.lease_owner else "",
        parent=str(options.get("parent") or ""),
        arguments=arguments_of(fields) if arguments else None,
    )
    if record is None:
        return line
    state = record.state if record.ended else line.state
    error = f"{record.error['type']}: {record.error['message']}"[:LONGEST_ERROR] if record.error else ""
    return replace(
        line,
        state=state,
        attempts=max(line.attempts, record.attempts),
        started_at=record.started_at,
        progress=record.progress,
        error=error,
    )


def _tags(tags: Any) -> tuple[str, ...]:
    return tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()


def _number(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
