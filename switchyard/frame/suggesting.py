"""Suggestions while a person types in the search: pages and names of the code, and what ended jobs are found by.

The search itself finds more: what lies in the broker, and whatever has the text inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, Final, NamedTuple

import dramatiq
from django.db import DatabaseError
from django.db.models import QuerySet
from django.urls import NoReverseMatch, reverse

from switchyard.broker.stores.job_records import STEPS
from switchyard.conf import declared_yard
from switchyard.console.links import job_url, jobs_url
from switchyard.console.queue_rights import holds
from switchyard.frame.navigation import room_pages
from switchyard.frame.search import OPERATIONS, Hit, User, actors, queues, schedules
from switchyard.history.filters import TAG, searched_names
from switchyard.history.models import JobRow, SearchValue
from switchyard.jobs.queries import is_job_id, written_id
from switchyard.loggers import get_logger

LEAST: Final = 2
MOST: Final = 8
# Places that names of the code leave to values of jobs.
MOST_VALUES: Final = 4
ARGUMENT: Final = "argument"
log = get_logger(__name__)


class Suggestion(NamedTuple):
    """A page that a text may mean.

    Args:
        kind: What it is, in one word: ``queue``, ``actor``, ``page``; ``owner``, ``tag`` or ``argument`` of jobs.
    """

    kind: str
    name: str
    address: str


def suggestions(user: User, asked: str) -> tuple[Suggestion, ...]:
    """Return what a text may mean, what begins with it first; nothing that the user may not see."""
    if len(asked) < LEAST:
        return ()
    job_id = written_id(asked)
    if is_job_id(job_id):
        return (Suggestion("job", job_id, job_url(job_id)),) if holds(user, "switchyard_jobs.view_job") else ()
    wanted = asked.lower()
    found = [one for one in _known(user, asked) if one.address and (wanted in one.name.lower() or one.kind == ARGUMENT)]
    found.sort(key=lambda one: not one.name.lower().startswith(wanted))
    values = [one for one in _values(user, asked) if one not in found][:MOST_VALUES]
    return (*found[: MOST - len(values)], *values)


def _values(user: User, asked: str) -> list[Suggestion]:
    """Return what jobs have that begins with a text; nothing while the database does not answer."""
    if not holds(user, "switchyard_jobs.view_job"):
        return []
    kinds = [owners, tags]
    if holds(user, "switchyard_jobs.view_arguments"):
        kinds.append(arguments)
    try:
        each = [list(islice(kind(asked), MOST_VALUES)) for kind in kinds]
    except DatabaseError as error:
        log.warning("suggestions lack what jobs have: the database does not answer", error=type(error).__name__)
        return []
    # One of each kind before the second of any.
    return [one for row in zip_longest(*each) for one in row if one is not None]


def _known(user: User, asked: str) -> Iterator[Suggestion]:
    yield from _pages(user)
    if holds(user, OPERATIONS):
        yield from (Suggestion("queue", one.name, one.address) for one in queues())
        yield from (Suggestion("actor", one.name, one.address) for one in actors())
        workers = _reversed("switchyard-operations-workers")
        for pool in declared_yard().pools:
            yield Suggestion("pool", pool.name, workers and f"{workers}#pool-{pool.name}")
    if holds(user, "switchyard_schedules.view_schedulestate"):
        yield from (Suggestion("schedule", one.name, one.address) for one in _schedules())
    if holds(user, "switchyard_jobs.view_job"):
        yield from (Suggestion("jobs by state", state, jobs_url(state=state)) for state in STEPS)
        if holds(user, "switchyard_jobs.view_arguments"):
            yield from _arguments(asked)


def _schedules() -> Sequence[Hit]:
    """Return the schedules; none while the database, which has those of rows, does not answer."""
    try:
        return tuple(schedules())
    except DatabaseError as error:
        log.warning("suggestions lack schedules: the database does not answer", error=type(error).__name__)
        return ()


def _pages(user: User) -> Iterable[Suggestion]:
    pages = (page for page in room_pages() if holds(user, page.right))
    return (Suggestion("page", page.title, _reversed(page.name)) for page in pages)


def _arguments(asked: str) -> Iterator[Suggestion]:
    name, equals, value = (part.strip() for part in asked.partition("="))
    if equals and value and any(name in searched_names(actor) for actor in dramatiq.get_broker().actors):
        yield Suggestion(ARGUMENT, f"{name}={value}", jobs_url(argument=f"{name}={value}"))


def _reversed(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:  # a project that includes a part of the room
        return ""


# Of each kind. A database may order texts so that others stand between those with one beginning: they count as steps.
MOST_OF_KIND, MOST_STEPS = 3, 6
MOST_NAMES = 12
# Stored in place of a longer value.
DIGEST: Final = "sha256:"


def owners(text: str) -> Iterator[Suggestion]:
    rows = JobRow.objects.filter(owner__isnull=False)
    yield from (Suggestion("owner", name, jobs_url(owner=name)) for name in _beginning_with(rows, "owner", text))


def tags(text: str) -> Iterator[Suggestion]:
    rows = SearchValue.objects.filter(name=TAG)
    yield from (Suggestion("tag", name, jobs_url(tag=name)) for name in _beginning_with(rows, "value", text))


def arguments(text: str) -> Iterator[Suggestion]:
    """Yield arguments that jobs which have ended are found by: ``name=value`` or the beginning of any value."""
    wanted, equals, value = (part.strip() for part in text.partition("="))
    names = sorted({name for actor in dramatiq.get_broker().actors for name in searched_names(actor)})
    for name in ([wanted] if wanted in names else []) if equals else names[:MOST_NAMES]:
        rows = SearchValue.objects.filter(name=name)
        for found in _beginning_with(rows, "value", value if equals else text):
            if not found.startswith(DIGEST):
                yield Suggestion(ARGUMENT, f"{name}={found}", jobs_url(argument=f"{name}={found}"))


def _beginning_with(rows: QuerySet[Any], column: str, text: str) -> Iterator[str]:
    """Yield distinct values of a column that begin with a text, at most ``MOST_OF_KIND``, in the order of the index."""
    found, compared, last = 0, "gte", text
    for _ in range(MOST_STEPS):
        following = (
            rows.filter(**{f"{column}__{compared}": last}).order_by(column).values_list(column, flat=True).first()
        )
        if following is None or found == MOST_OF_KIND:
            return
        if following.startswith(text):
            found += 1
            yield following
        elif following.casefold() > f"{text.casefold()}\U0010ffff":
            return
        compared, last = "gt", following
