"""A product's row and the job that made it: its state, its actor and its dead letter as links of the row's page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.stores.job_record import Job
from switchyard.console.links import actor_url, job_url, letter_url, queue_url
from switchyard.console.lists import CheckedQuery
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.passport.reading import passport_of

NOTHING = "–"
COLUMNS = ("shown_job", "shown_actor", "shown_letter")


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
        job, why_none = self._job(row)
        parts = [_link(job_url(row.job_id), row.job_id) if row.job_id else NOTHING, why_none]
        if job is not None:
            parts += [job.state, format_html("on {}", _link(queue_url(job.queue), job.queue)), _detail(job)]
        return format_html_join(" ", "{}", ((part,) for part in parts if part))

    @admin.display(description="Actor")
    def shown_actor(self, row: Any) -> str:
        job, _ = self._job(row)
        return actor_link("" if job is None else job.actor)

    @admin.display(description="Dead letter")
    def shown_letter(self, row: Any) -> str:
        letters = DeadLetter.objects.filter(message_id=row.job_id) if row.job_id else DeadLetter.objects.none()
        letter = letters.values_list("pk", flat=True).first()
        return NOTHING if letter is None else _link(letter_url(letter), f"Letter {letter}")

    def _job(self, row: Any) -> tuple[Job | None, str]:
        """Return what is known of the job, or why nothing is. Two columns ask for it: once for each row."""
        if "found_job" not in vars(row):
            row.found_job = _found(row.job_id)
        found: tuple[Job | None, str] = row.found_job
        return found


def _found(job_id: str) -> tuple[Job | None, str]:
    if not job_id:
        return None, ""
    try:
        known = passport_of(job_id)
    except BrokerError:
        return None, "the broker does not answer"
    return (None, "neither the broker nor the history knows it any more") if known is None else (known.job, "")


def _detail(job: Job) -> str:
    if job.state == "retrying" and job.next_attempt_at is not None:
        due = datetime_of(job.next_attempt_at)
        return f"next attempt {due.day} {due:%b %Y %H:%M:%S} UTC"
    return (job.reason or "").replace("_", " ")


def _link(address: str, name: str) -> SafeString:
    return format_html('<a href="{}">{}</a>' if address else "{1}", address, name)
