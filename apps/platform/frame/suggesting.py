"""Suggestions while a person types in the search: pages and names that are known without asking a server.

The search itself finds more: what lies in the broker and in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import dramatiq
from django.urls import NoReverseMatch, reverse

from apps.platform.conf import declared_yard
from apps.platform.console.links import actor_url, job_url, jobs_url, queue_url, schedule_url
from apps.platform.frame.finding import OPERATIONS, User
from apps.platform.frame.navigation import ROOM, SETTINGS
from apps.platform.history.search_values import searched_names
from apps.platform.jobs.queries import is_job_id, written_id
from apps.platform.schedules.registry import schedules
from broker.stores.job_records import STEPS

LEAST: Final = 2
MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A page that a text may mean.

    Args:
        kind: What it is, in one word: ``queue``, ``actor``, ``page``.
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
        return (Suggestion("job", job_id, job_url(job_id)),) if _may(user, "switchyard_jobs.view_job") else ()
    wanted = asked.lower()
    found = [one for one in _known(user, asked) if one.address and wanted in one.name.lower()]
    found.sort(key=lambda one: not one.name.lower().startswith(wanted))
    return tuple(found[:MOST])


def _known(user: User, asked: str) -> Iterator[Suggestion]:
    yield from _pages(user)
    if _may(user, OPERATIONS):
        yard = declared_yard()
        yield from (Suggestion("queue", queue.name, queue_url(queue.name)) for queue in yard.queues)
        names = sorted(dramatiq.get_broker().actors)
        yield from (Suggestion("actor", name, actor_url(name)) for name in names)
        workers = _reversed("switchyard-operations-workers")
        yield from (Suggestion("pool", pool.name, workers and f"{workers}#pool-{pool.name}") for pool in yard.pools)
    if _may(user, "switchyard_schedules.view_schedulestate"):
        yield from (Suggestion("schedule", one.name, schedule_url(one.name)) for one in schedules())
    if _may(user, "switchyard_jobs.view_job"):
        yield from (Suggestion("jobs by state", state, jobs_url(state=state)) for state in STEPS)
        if _may(user, "switchyard_jobs.view_arguments"):
            yield from _arguments(asked)


def _pages(user: User) -> Iterable[Suggestion]:
    pages = (page for page in (*ROOM, *SETTINGS) if _may(user, page.right))
    return (Suggestion("page", page.title, _reversed(page.name)) for page in pages)


def _arguments(asked: str) -> Iterator[Suggestion]:
    name, equals, value = (part.strip() for part in asked.partition("="))
    if equals and value and any(name in searched_names(actor) for actor in dramatiq.get_broker().actors):
        yield Suggestion("jobs by argument", asked, jobs_url(argument=f"{name}={value}"))


def _may(user: User, right: str) -> bool:
    return bool(user.has_perm(right))  # type: ignore[union-attr]


def _reversed(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:  # a project that includes a part of the room
        return ""
