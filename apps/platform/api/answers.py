"""Answers that every app gives alike."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse


def accepted(request: HttpRequest, job_id: str) -> dict[str, str]:
    """Return the body of a 202: the job's id, and where its state and its events are (absolute URLs)."""
    return {
        "job_id": job_id,
        "status_url": job_url(request, job_id),
        "events_url": job_url(request, job_id, part="events"),
    }


def job_url(request: HttpRequest, job_id: str, *, part: str = "") -> str:
    """Return the absolute URL of a job, or of its ``events`` or ``result``."""
    name = f"api:job_{part}" if part else "api:job"
    return request.build_absolute_uri(reverse(name, kwargs={"job_id": job_id}))
