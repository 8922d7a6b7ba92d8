"""``Idempotency-Key``: a repeated request returns the first response again, and does its work once.

Follows draft-ietf-httpapi-idempotency-key-header. Keys belong to a token and are kept for a day.

A request that ended without a final answer keeps its claim: jobs and rows get ids that are derived from the claim, so
that a repetition finds those of the run before (:mod:`switchyard.api.request_jobs`).
"""

import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from switchyard.api.auth import token_of
from switchyard.api.exception_handlers import answer
from switchyard.api.models import IdempotentRequest, Token
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import NOT_ENQUEUED, RequestJobs, request_jobs
from switchyard.broker import clock
from switchyard.database import delete_old
from switchyard.middleware.clock_comparison import compared_now

KEPT = timedelta(hours=24)
# A request that runs for longer has lost its process; a repetition takes its key over.
LAPSES = timedelta(seconds=60)
PURGE_EVERY = 100
STORED_HEADERS = ("Content-Type", "Location")
# Refusals before any work began: the key is free again.
UNSTORED = frozenset({401, 403, 413, 415})
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
logger = logging.getLogger(__name__)

Run = Callable[..., Any]


def once(run: Run) -> Run:
    """Decorate an operation of the API so that a POST with an ``Idempotency-Key`` and a valid token runs once.

    Only plain functions are covered: an async one can be cancelled between work and answer.
    """
    if iscoroutinefunction(run):
        return run

    @functools.wraps(run)
    def run_once(request: HttpRequest, **path: Any) -> Any:
        if request.method != "POST":
            return run(request, **path)
        key = request.headers.get("Idempotency-Key")
        with request_jobs(RequestJobs(has_key=key is not None)) as jobs:
            if key is None:
                return run(request, **path)
            try:
                token = token_of(request)
                if token is None:
                    jobs.has_key = False
                    return run(request, **path)
                claimed = claim(token, key, fingerprint(request), jobs)
            except Exception as error:  # noqa: BLE001  every error becomes a problem document, as in an operation
                return answer(request, error)
            if isinstance(claimed, HttpResponse):
                return claimed
            jobs.claim = f"{claimed.pk} {claimed.token_id} {claimed.claimed_at.isoformat()} {claimed.key}"
            response = run(request, **path)
        settle(claimed, response, refused=jobs.refused_before_work)
        return response

    return run_once


def claim(token: Token, key: str, fingerprint: str, jobs: RequestJobs) -> IdempotentRequest | HttpResponse:
    """Claim a key for a run of a request, or return the stored response; ``Problem`` 400, 409 or 422.

    Notes with the request's jobs whether an earlier run began, and may have enqueued one.
    """
    if _KEY.fullmatch(key) is None:
        raise Problem(400, "Idempotency-Key: not 1 to 255 printable ASCII characters; use for example a UUID")
    kept = IdempotentRequest.objects.filter(token=token, key=key)
    now = compared_now()
    # Reading first saves repetitions the database's write lock.
    if (found := kept.first()) is not None:
        return _known(found, fingerprint, jobs)
    try:
        with transaction.atomic():
            made = IdempotentRequest.objects.create(token=token, key=key, fingerprint=fingerprint, claimed_at=now)
    except IntegrityError:
        if (found := kept.first()) is not None:
            return _known(found, fingerprint, jobs)
        raise _in_flight() from None  # it was refused meanwhile and freed the key
    if made.pk % PURGE_EVERY == 0:
        purge()
    return made


def settle(run: IdempotentRequest, response: HttpResponseBase, *, refused: bool = False) -> None:
    """Store the response to a run; free the key when the request was refused before any work began.

    A response that cannot be stored is sent nevertheless: the claim lapses, and a repetition finds the run's jobs.
    """
    ours = _same_run(run).filter(status__isnull=True)
    try:
        if refused or response.status_code in UNSTORED or not isinstance(response, HttpResponse):
            ours.delete()
            return
        headers = {name: response[name] for name in STORED_HEADERS if name in response}
        ours.update(status=response.status_code, headers=headers, body=response.content)
    except DatabaseError as error:
        logger.warning("response to a request with an Idempotency-Key not stored: %s", error)


def purge() -> int:
    """Delete stored requests older than a day, a bounded number at once; return the count."""
    old = IdempotentRequest.objects.filter(claimed_at__lt=clock.utc_now() - KEPT).order_by("claimed_at")
    return delete_old(old, batches=1)


def fingerprint(request: HttpRequest) -> str:
    """Return the SHA-256 of method, path and body; of a multipart body its parts count, not its boundary."""
    digest = hashlib.sha256()
    for part in (request.method or "", request.get_full_path()):
        digest.update(f"{len(part)}:{part}".encode())
    if request.content_type == "multipart/form-data":
        for piece in _multipart(request):
            digest.update(piece)
    else:
        digest.update(request.body)
    return digest.hexdigest()


def _known(found: IdempotentRequest, fingerprint: str, jobs: RequestJobs) -> IdempotentRequest | HttpResponse:
    now = clock.utc_now()
    if now - found.claimed_at >= KEPT:
        return _take_over(found, fingerprint, claimed_at=now, repeated_at=None)
    if found.fingerprint != fingerprint:
        raise Problem(
            422,
            "Idempotency-Key: it was used with a different request; use a new key for a new request",
            type="urn:switchyard:problem:idempotency-key-reused",
        )
    if found.status is None:
        if now - (found.repeated_at or found.claimed_at) < LAPSES:
            raise _in_flight()
    elif found.status != 429 and found.status < 500:
        headers = found.headers | {"Idempotency-Replayed": "true"}
        return HttpResponse(bytes(found.body), status=found.status, headers=headers)
    jobs.repeated, jobs.in_doubt = True, not _was_not_enqueued(found)
    return _take_over(found, fingerprint, claimed_at=found.claimed_at, repeated_at=now)


def _take_over(
    found: IdempotentRequest, fingerprint: str, *, claimed_at: datetime, repeated_at: datetime | None
) -> IdempotentRequest:
    values = {"claimed_at": claimed_at, "repeated_at": repeated_at, "fingerprint": fingerprint}
    if not _same_run(found).filter(status=found.status).update(**values, status=None, headers={}, body=b""):
        raise _in_flight()
    found.claimed_at, found.repeated_at = claimed_at, repeated_at
    return found


def _same_run(run: IdempotentRequest) -> QuerySet[IdempotentRequest]:
    return IdempotentRequest.objects.filter(pk=run.pk, claimed_at=run.claimed_at, repeated_at=run.repeated_at)


def _was_not_enqueued(found: IdempotentRequest) -> bool:
    """Return whether the stored problem says that nothing was enqueued; a run that left none may have done so."""
    try:
        document = json.loads(bytes(found.body))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("outcome") == NOT_ENQUEUED


def _in_flight() -> Problem:
    return Problem(
        409,
        "Idempotency-Key: the first request with it is still running; retry in a second",
        headers={"Retry-After": "1"},
        type="urn:switchyard:problem:idempotency-key-in-flight",
    )


def _multipart(request: HttpRequest) -> Iterator[bytes]:
    for name, values in sorted(request.POST.lists()):
        for value in values:
            yield f"field {len(name)}:{name} {len(value)}:{value}".encode()
    for name, files in sorted(request.FILES.lists()):
        for file in files:
            label = f"{file.name} {file.content_type}"
            yield f"file {len(name)}:{name} {len(label)}:{label} {file.size}:".encode()
            yield from file.chunks()
            file.seek(0)
