"""Search among jobs and rows of the database: jobs, owners, arguments, dead letters, alerts."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
from django.db.models import Count, Max, Q
from django.urls import reverse

from switchyard.alerts.models import Alert
from switchyard.console.links import alert_url, job_url, jobs_url, letter_url
from switchyard.dead_letters.models import DeadLetter
from switchyard.frame.hits import Hit
from switchyard.history.filters import Filter
from switchyard.history.models import SearchValue
from switchyard.history.search_values import search_text, searched_names
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.queries import is_job_id, is_message_id, written_id

MOST, MOST_GROUPS = 10, 200
DIGITS = 15


def jobs(asked: str) -> Iterator[Hit]:
    """Find a job by its id.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    job_id = written_id(asked)
    passport = passport_of(job_id) if is_message_id(job_id) else None
    if passport is not None:
        yield Hit(passport.id, job_url(passport.id), is_exact=True, is_id=True)


def owners(asked: str) -> Iterator[Hit]:
    """Find an owner by its whole name."""
    page = find_jobs(Filter(owner=asked), limit=1)
    if page.lines:
        yield Hit(asked, jobs_url(owner=asked), "jobs of this owner", is_exact=True)


def arguments(asked: str) -> Iterator[Hit]:
    """Find jobs by an argument: ``name=value``, or the value of any argument that an actor lists in ``search``."""
    name, equals, value = (part.strip() for part in asked.partition("="))
    if equals and name:
        page = find_jobs(Filter(argument=(name, value)), limit=1)
        if page.lines:
            yield _with_argument(f"{name}={value}", "jobs with this argument")
        return
    names = {name for actor in dramatiq.get_broker().actors for name in searched_names(actor)}
    rows = SearchValue.objects.filter(name__in=names, value=search_text(asked) or "")
    for row in rows.values("name").annotate(count=Count("id")).order_by("name")[:MOST]:
        yield _with_argument(f"{row['name']}={asked}", f"{row['count']:,} jobs that have ended")


def _with_argument(argument: str, note: str) -> Hit:
    return Hit(argument, jobs_url(argument=argument), note, is_exact=True)


def letters(asked: str) -> Iterator[Hit]:
    """Find dead letters by the id of their message, and groups by fingerprint, actor, queue or their newest error.

    The errors of 100,000 letters take a second to read; those of a group are much the same.
    """
    if is_job_id(written_id(asked)):
        for row in DeadLetter.objects.filter(message_id=written_id(asked)).order_by("-died_at")[:MOST]:
            name, state = f"{row.exception} of {row.actor}", row.get_state_display().lower()
            yield Hit(name, letter_url(row.pk), state)
        return
    address = reverse("switchyard-letters")
    text = Q(exception__icontains=asked) | Q(error__icontains=asked) | Q(actor=asked) | Q(queue=asked)
    opened = DeadLetter.objects.filter(is_open=1).order_by()
    newest = opened.values("fingerprint").annotate(newest=Max("id")).values("newest")
    rows = DeadLetter.objects.filter(text | Q(fingerprint=asked), pk__in=newest).order_by("-died_at")
    groups = {row.fingerprint: row for row in rows.only("fingerprint", "exception", "actor")[:MOST_GROUPS]}
    counts = opened.filter(fingerprint__in=list(groups)).values_list("fingerprint").annotate(count=Count("id"))
    for fingerprint, count in counts.order_by("-count")[:MOST]:
        yield Hit(
            f"{groups[fingerprint].exception} of {groups[fingerprint].actor}",
            f"{address}?fingerprint={fingerprint}",
            f"{count:,} open",
            is_id=fingerprint == asked,
        )


def alerts(asked: str) -> Iterator[Hit]:
    """Find alerts by number, title or fingerprint."""
    wanted = Q(title__icontains=asked) | Q(fingerprint=asked)
    number = asked.upper().removeprefix("A-")
    if number.isdecimal() and len(number) <= DIGITS:
        wanted |= Q(pk=int(number))
    for alert in Alert.objects.filter(wanted)[:MOST]:
        note = f"A-{alert.pk}, {alert.get_state_display().lower()}"
        yield Hit(alert.title, alert_url(alert.pk), note)
