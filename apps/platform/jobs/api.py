"""HTTP API of jobs: state, live events, result file and cancellation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.base import File
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from ninja import Router, Status

from apps.platform.api.auth import cancel_scope, read_scope, token_of
from apps.platform.api.problems import Problem, not_found
from apps.platform.api.responses import accepted, job_url
from apps.platform.api.schemas import Accepted
from apps.platform.jobs import live
from apps.platform.jobs.presentation import job_body, result_file
from apps.platform.jobs.queries import visible_job, visible_untracked
from apps.platform.jobs.results import open_result
from apps.platform.jobs.schemas import JobBody
from apps.platform.jobs.services import request_cancel
from apps.platform.jobs.streaming import Stream, free_database
from broker.stores.job_records import JobRecord

router = Router(tags=["Jobs"])

CHUNK_BYTES = 64 * 1024
UNKNOWN = "no job has this id, or it has ended: its record has expired, or it was sent with track=False and has none"
EVENT: dict[str, Any] = {
    "title": "JobEvent",
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["state", "progress", "end"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "`state` and `end`: an object with `state` and what is known of it; "
            "`progress`: `done`, `total` and `note`.",
        },
    },
}
EVENTS_DOC: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "description": "Id of the last event that was read; what came after it follows.",
            "schema": {"type": "string", "maxLength": 41},
        }
    ],
    "responses": {
        200: {
            "description": "Events `state`, `progress` and, last, `end`; a comment every 15 s.",
            "content": {"text/event-stream": {"schema": EVENT}},
        },
        204: {"description": "The job has ended and its last event was read: nothing follows."},
        429: {"description": "The token has as many streams as it may."},
    },
}
RESULT_DOC: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The file.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        409: {"description": "The job has not ended."},
    }
}


@router.get("/{job_id}", auth=read_scope, response={200: JobBody}, url_name="job", operation_id="get_job")
def get_job(request: HttpRequest, job_id: str) -> dict[str, Any]:
    """Return the state of a job."""
    job = _visible(request, job_id)
    url = job_url(request, job.id, part="result") if result_file(job) else None
    return job_body(job, result_url=url)


@router.delete(
    "/{job_id}",
    auth=cancel_scope,
    response={202: Accepted},
    url_name="job",
    operation_id="cancel_job",
    openapi_extra={"responses": {409: {"description": "The job has ended already."}}},
)
def cancel_job(request: HttpRequest, job_id: str) -> Status[dict[str, str]]:
    """Cancel a job: a waiting job never starts, a running job is stopped within 10 seconds.

    A job without a record can be cancelled until it ends; its state cannot be read.
    """
    owner, operator = _caller(request)
    tracked = visible_job(job_id, owner=owner, operator=operator) is not None
    if not tracked and not visible_untracked(job_id, owner=owner, operator=operator):
        raise not_found(UNKNOWN)
    outcome = request_cancel(job_id)
    if outcome == "unknown":
        raise not_found(UNKNOWN)
    if outcome == "ended":
        raise Problem(409, "the job has ended already; there is nothing to cancel")
    return Status(202, accepted(request, job_id))


@router.get(
    "/{job_id}/events",
    auth=read_scope,
    url_name="job_events",
    operation_id="follow_job",
    openapi_extra=EVENTS_DOC,
)
async def follow_job(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Follow a job live as server-sent events, up to its end."""
    job = await sync_to_async(_visible)(request, job_id)
    after = request.headers.get("Last-Event-ID", "")
    if not await live.has_news(job, after):
        return HttpResponse(status=204)
    await free_database()
    place = live.StreamPlace(str(request.auth.prefix))  # type: ignore[attr-defined]
    return StreamingHttpResponse(
        Stream(live.follow(job, after=after, heartbeat_s=live.HEARTBEAT_S), source=place),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/{job_id}/result",
    auth=read_scope,
    url_name="job_result",
    operation_id="get_job_result",
    openapi_extra=RESULT_DOC,
)
async def get_job_result(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Download the result file of a job."""
    job = await sync_to_async(_visible)(request, job_id)
    if not job.ended:
        raise Problem(409, f"the job is {job.state}; its result is here once it has succeeded")
    described = result_file(job)
    file = None if described is None else await sync_to_async(open_result)(described["file"])
    if described is None or file is None:
        raise not_found("the job left no file, or it was removed")
    await free_database()
    return StreamingHttpResponse(
        Stream(_chunks(file), source=file),
        content_type=described["content_type"],
        headers={
            "Content-Length": str(file.size),
            "Content-Disposition": content_disposition_header(True, described["filename"]) or "attachment",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _visible(request: HttpRequest, job_id: str) -> JobRecord:
    owner, operator = _caller(request)
    job = visible_job(job_id, owner=owner, operator=operator)
    if job is None:
        raise not_found("no job has this id, or it has expired")
    return job


def _caller(request: HttpRequest) -> tuple[str, bool]:
    """Return the owner key of a request's token, and whether it may operate."""
    token = token_of(request)
    return ("", False) if token is None else (token.owner_key, token.allows("operate"))


async def _chunks(file: File[Any]) -> AsyncGenerator[bytes]:
    read = sync_to_async(file.read, thread_sensitive=False)
    while chunk := await read(CHUNK_BYTES):
        yield chunk
