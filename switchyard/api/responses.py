"""Response bodies that all apps share."""

from django.http import HttpRequest
from django.urls import reverse

from switchyard.conf import switchyard_settings
from switchyard.console.formatting import iso
from switchyard.console.links import absolute


def accepted(request: HttpRequest, job_id: str) -> dict[str, str]:
    """Return the body of a 202: the job's id, and the absolute URLs of its state and its events."""
    return {
        "job_id": job_id,
        "status_url": job_url(request, job_id),
        "events_url": job_url(request, job_id, part="events"),
    }


def job_url(request: HttpRequest, job_id: str, *, part: str = "") -> str:
    """Return the absolute URL of a job, or of its ``events`` or ``result``, below ``PUBLIC_URL``.

    The request's ``Host``, which is the client's to choose, is used in development alone, without that setting.
    """
    name = f"switchyard_api:job_{part}" if part else "switchyard_api:job"
    path = reverse(name, kwargs={"job_id": job_id})
    known = switchyard_settings()
    if known.debug and not known.has_public_url:
        return request.build_absolute_uri(path)
    return absolute(path)


def iso_time(ms: int | None) -> str | None:
    """Return milliseconds since the epoch in the API's format: ISO 8601 in UTC with microseconds."""
    return None if ms is None else iso(ms)
