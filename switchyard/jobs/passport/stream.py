"""Events of a job for its page in the admin: the API's stream, for the session of a user."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from switchyard.jobs import live
from switchyard.jobs.admin_pages import GONE
from switchyard.jobs.live import free_database
from switchyard.jobs.queries import find_known


async def job_events(request: HttpRequest, job_id: str, *, caller: str) -> HttpResponseBase:
    """Follow a job as server-sent events, up to its end."""
    job = await sync_to_async(find_known)(job_id)
    if job is None:
        return HttpResponse(GONE, status=404, content_type="text/plain")
    after = request.headers.get("Last-Event-ID", "")
    if not await live.has_news(job, after):
        return HttpResponse(status=204)
    await free_database()
    return live.response(job, after=after, place=live.StreamPlace(caller))
