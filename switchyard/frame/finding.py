"""Search by anything: the id of a job, or the name of an actor, queue, owner, argument, letter, alert or worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.db import DatabaseError

from switchyard.broker.errors import BrokerError
from switchyard.frame import finding_names, finding_rows
from switchyard.frame.hits import Hit, HitGroup

User = AbstractBaseUser | AnonymousUser | PermissionsMixin
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Things that a text names.

    Args:
        exact: Address of the only thing that it names exactly; "" for none or several.
        unread: Kinds that could not be searched, because the broker or the database did not answer.
    """

    groups: tuple[HitGroup, ...]
    exact: str
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchedKind:
    """Things of one kind, the right to see them, and the search among them."""

    title: str
    right: str
    search: Callable[[str], Iterator[Hit]]


OPERATIONS = "switchyard_operations.view_operations"
KINDS = (
    SearchedKind("Jobs", "switchyard_jobs.view_job", finding_rows.jobs),
    SearchedKind("Queues", OPERATIONS, finding_names.queues),
    SearchedKind("Actors", OPERATIONS, finding_names.actors),
    SearchedKind("Schedules", "switchyard_schedules.view_schedulestate", finding_names.schedules),
    SearchedKind("Workers", OPERATIONS, finding_names.workers),
    SearchedKind("Dead letters", "switchyard_dead_letters.view_deadletter", finding_rows.letters),
    SearchedKind("Alerts", "switchyard_alerts.view_alert", finding_rows.alerts),
    SearchedKind("Owners", "switchyard_jobs.view_job", finding_rows.owners),
    SearchedKind("Arguments", "switchyard_jobs.view_arguments", finding_rows.arguments),
)


def found(user: User, asked: str) -> SearchAnswer:
    """Return what a text names, of the kinds that the user may see."""
    groups, unread = [], []
    for kind in KINDS:
        if not user.has_perm(kind.right):  # type: ignore[union-attr]
            continue
        try:
            hits = tuple(hit for hit in kind.search(asked) if hit.address)
        except (BrokerError, DatabaseError) as error:
            log.warning("a search was cut short", kind=kind.title, error=type(error).__name__)
            unread.append(kind.title.lower())
            continue
        if hits:
            groups.append(HitGroup(kind.title, hits))
    everything = [hit for group in groups for hit in group.hits]
    exact = [hit.address for hit in everything if hit.is_id]
    if not exact and len(everything) == 1 and everything[0].is_exact:
        exact = [everything[0].address]
    return SearchAnswer(tuple(groups), exact[0] if exact else "", tuple(unread))
