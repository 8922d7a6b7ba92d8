"""Shared parts of the pages of jobs: rights, texts while the broker is away or a job is gone, and a job's events."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from switchyard.api.problems import Problem
from switchyard.broker.errors import BrokerError
from switchyard.console.links import admin_site
from switchyard.console.queue_rights import holds
from switchyard.console.room_view import require, room_view
from switchyard.jobs import live
from switchyard.jobs.queries import find_known

AWAY = "The broker does not answer, so jobs cannot be shown; check /readyz, then try again."
GONE = "No job has this id, or its record and its history have expired."
NO_STREAMS = "Django runs under WSGI here, where a stream would block a thread; serve it by ASGI, or poll the page."


def may(request: HttpRequest, right: str, queue: str | None = "") -> bool:
    """Return whether the user has a right of jobs for a queue, by default for all of them; with ``None`` for any.

    Args:
        right: ``view_arguments``, ``cancel_job`` or ``run_job``.
    """
    return holds(request.user, f"switchyard_jobs.{right}", queue)


def check(request: HttpRequest, *rights: str, queue: str | None = None) -> None:
    """Refuse a user who may not view jobs, or lacks one of further rights of jobs, perhaps for a queue.

    Raises:
        PermissionDenied: with the name of the right.
    """
    require(request, *(f"switchyard_jobs.{right}" for right in ("view_job", *rights)), queue=queue)


def can_stream(request: HttpRequest) -> bool:
    """Return whether a stream may answer a request: under WSGI it would block a thread of the server until its end."""
    return isinstance(request, ASGIRequest)


async def events(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Follow a job as server-sent events up to its end, for a user who may view jobs.

    429 and 503 beyond the limits of open streams.
    """
    admitted: list[str] = []

    def admit(request: HttpRequest) -> HttpResponse:
        check(request)
        admitted.append(f"user:{request.user.pk}")
        return HttpResponse()

    def allowed() -> bool:
        user = get_user_model().objects.filter(pk=admitted[0].removeprefix("user:")).first()
        if user is None or not user.has_perm("switchyard_jobs.view_job"):  # an inactive one has no rights
            return False
        held: Any = request.user
        held.refresh_from_db()  # in place: a second factor is noted on it
        return admin_site().has_permission(request)

    refusal: HttpResponseBase = await sync_to_async(room_view(admit))(request)
    if not admitted:
        return refusal
    if not can_stream(request):
        return HttpResponse(NO_STREAMS, status=501, content_type="text/plain")
    try:
        job = await sync_to_async(find_known)(job_id)
        if job is None:
            return HttpResponse(GONE, status=404, content_type="text/plain")
        return await live.answer(request, job, caller=admitted[0], allowed=allowed)
    except Problem as problem:
        return problem.response()
    except (BrokerError, DatabaseError):
        return HttpResponse(AWAY, status=503, content_type="text/plain", headers=live.RETRY_AFTER)
