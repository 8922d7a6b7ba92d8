"""A product's row and the job that made it: its state, its actor and its dead letter as links of the row's page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.console.links import actor_url, job_url, letter_url, queue_url
from switchyard.console.list_queries import CheckedQuery
from switchyard.dead_letters.models import DeadLetter
from switchyard.history import queries as history
from switchyard.jobs.queries import find_job

NOTHING = "–"
COLUMNS = ("shown_job", "shown_actor", "shown_letter")


@dataclass(frozen=True, slots=True)
class FoundJob:
    """State of a job as broker, history and dead letters know it."""

    state: str = ""
    actor: str = ""
    queue: str = ""
    detail: str = ""
    letter: int | None = None


def find_of(job_id: str) -> FoundJob:
    """Return what is known of a job; ``detail`` says so where nothing is."""
    letter = DeadLetter.objects.filter(message_id=job_id).values_list("pk", flat=True).first() if job_id else None
    if not job_id:
        return FoundJob()
    detail = "neither the broker nor the history knows it any more"
    try:
        record = find_job(job_id)
    except BrokerError:
        record, detail = None, "the broker does not answer"
    if record is not None:
        next_at = None if record.ended else record.next_attempt_at
        detail = (record.reason or "").replace("_", " ") if next_at is None else f"next attempt {_clock(next_at)}"
        return FoundJob(record.state, record.actor, record.queue, detail, letter)
    row = history.find(job_id)
    if row is None:
        return FoundJob(detail=detail, letter=letter)
    return FoundJob(row.state, row.actor, row.queue, row.reason.replace("_", " "), letter)


def actor_link(name: str) -> str:
    """Return a link to an actor's page, or its name where the project has no such page."""
    return _link(actor_url(name), name) if name else NOTHING


class JobLinks(CheckedQuery):
    """Page of a row with a column ``job_id``: the job with its state, its actor and its dead letter, as links."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields, with the links in the place of ``job_id``."""
        found = list(super().get_fields(request, obj))
        if obj is None or "job_id" not in found:
            return found
        place = found.index("job_id")
        return [*found[:place], *COLUMNS, *found[place + 1 :]]

    @admin.display(description="Job")
    def shown_job(self, row: Any) -> str:
        """Link the job of the row, with its state and its queue."""
        job = self._job(row)
        parts = [_link(job_url(row.job_id), row.job_id) if row.job_id else NOTHING, job.state]
        if job.queue:
            parts.append(format_html("on {}", _link(queue_url(job.queue), job.queue)))
        if job.detail:
            parts.append(job.detail)
        return format_html_join(" ", "{}", ((part,) for part in parts if part))

    @admin.display(description="Actor")
    def shown_actor(self, row: Any) -> str:
        """Link the actor of the job."""
        return actor_link(self._job(row).actor)

    @admin.display(description="Dead letter")
    def shown_letter(self, row: Any) -> str:
        """Link the dead letter of the job."""
        letter = self._job(row).letter
        return NOTHING if letter is None else _link(letter_url(letter), f"Letter {letter}")

    def _job(self, row: Any) -> FoundJob:
        # Three columns ask for it: once for each row.
        found: FoundJob | None = vars(row).get("found_job")
        if found is None:
            found = row.found_job = find_of(row.job_id)
        return found


def _clock(at_ms: int) -> str:
    at = datetime_of(at_ms)
    return f"{at.day} {at:%b %Y %H:%M:%S} UTC"


def _link(address: str, name: str) -> SafeString:
    return format_html('<a href="{}">{}</a>' if address else "{1}", address, name)
