"""Events of a job for its page in the admin: the API's stream, for the session of a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from apps.platform.api.problems import Problem
from apps.platform.jobs import live
from apps.platform.jobs.admin_pages import AWAY, GONE
from apps.platform.jobs.queries import find_known
from apps.platform.jobs.streaming import free_database
from broker.errors import BrokerError

NO_STREAMS = "Django runs under WSGI here, where a stream would block a thread; serve it by ASGI, or poll the page."


def can_stream(request: HttpRequest) -> bool:
    """Return whether a stream may answer a request: under WSGI it would block a thread of the server until its end."""
    return isinstance(request, ASGIRequest)


def events_view(admin_view: Callable[[Any], Any], check: Callable[[HttpRequest], None]) -> Callable[..., Any]:
    """Return the view that streams the events of a job.

    Args:
        admin_view: Wrapper of the admin site's views, which are synchronous; redirects to the login without a session.
        check: Raises ``PermissionDenied`` for a user without the right to view jobs.
    """

    # Django refuses asynchronous views within ATOMIC_REQUESTS.
    @require_GET
    @transaction.non_atomic_requests
    async def events(request: HttpRequest, job_id: str) -> HttpResponseBase:
        """Follow a job as server-sent events, up to its end; 429 and 503 beyond the limits of open streams."""
        admitted: list[str] = []

        def admit(request: HttpRequest) -> HttpResponse:
            check(request)
            admitted.append(f"user:{request.user.pk}")
            return HttpResponse()

        refusal: HttpResponseBase = await sync_to_async(admin_view(admit))(request)
        if not admitted:
            return refusal
        if not can_stream(request):
            return HttpResponse(NO_STREAMS, status=501, content_type="text/plain")
        try:
            return await _stream(request, job_id, caller=admitted[0])
        except Problem as problem:
            return problem.response()
        except (BrokerError, DatabaseError):
            headers = {"Retry-After": str(live.RETRY_AFTER_S)}
            return HttpResponse(AWAY, status=503, content_type="text/plain", headers=headers)

    return events


async def _stream(request: HttpRequest, job_id: str, *, caller: str) -> HttpResponseBase:
    job = await sync_to_async(find_known)(job_id)
    if job is None:
        return HttpResponse(GONE, status=404, content_type="text/plain")
    after = request.headers.get("Last-Event-ID", "")
    if not await live.has_news(job, after):
        return HttpResponse(status=204)
    await free_database()
    return live.response(job, after=after, place=live.StreamPlace(caller))
