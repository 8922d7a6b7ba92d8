"""Mapping of exceptions to problem documents."""

import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import Error as DatabaseFailure
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from ninja.errors import AuthenticationError, HttpError, ValidationError

from switchyard.api.auth import plain_token
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError, Problem
from switchyard.api.request_jobs import NOT_ENQUEUED, UNKNOWN, HistoryUnavailable, current_request
from switchyard.broker import errors
from switchyard.console.commands import database_trouble
from switchyard.files.addresses import DiskFull, StorageError, is_full
from switchyard.middleware.errors import ArgumentMisfit
from switchyard.middleware.logs import printable

RETRY_AFTER_S = 5
# Errors of what a request needs, the narrower ones first.
AWAY: tuple[tuple[type[Exception], str], ...] = (
    (errors.BrokerFull, "broker has no room for more work"),
    (errors.BrokerUnsafe, "broker is given no work until it is safe again"),
    (HistoryUnavailable, "database does not answer"),
    (errors.ResultStoreUnavailable, "store of results does not answer"),
    (errors.BrokerError, "broker does not answer"),
    (DiskFull, "disk of the files is full"),
    (StorageError, "storage does not answer"),
)
logger = logging.getLogger(__name__)


def problem_of(request: HttpRequest, error: Exception) -> Problem:
    """Return the problem document for an exception; unexpected ones are logged and reveal nothing."""
    for kinds, make in REFUSALS:
        if isinstance(error, kinds):
            return make(request, error)
    if isinstance(error, DatabaseFailure) and database_trouble(error):
        return _unavailable(request, error)
    logger.error("api request failed: %s", _line(request), exc_info=error)
    return _failed(500, "something went wrong on our side, it was logged", error)


def _line(request: HttpRequest, *facts: object) -> str:
    """Return what a line of the log says of a request: a path is the caller's, and may hold an end of line."""
    return printable(": ".join(map(str, (f"{request.method} {request.path}", *facts))))


def answer(request: HttpRequest, error: Any) -> HttpResponse:
    return problem_of(request, error).response()


def _unauthenticated(request: HttpRequest, error: Exception) -> Problem:
    wrong = ', error="invalid_token"'
    if "Authorization" not in request.headers:
        detail, wrong = "no token; send Authorization: Bearer sy_…", ""
    elif not plain_token(request):
        detail = "the header Authorization holds no bearer token; send Authorization: Bearer sy_…"
    else:
        detail = "the token is not valid; it is wrong, revoked, or its owner is inactive"
    return Problem(401, detail, headers={"WWW-Authenticate": f'Bearer realm="switchyard"{wrong}'})


def _http_error(request: HttpRequest, error: HttpError) -> Problem:
    # django-ninja wraps every exception of its parser in a 400.
    if isinstance(error.__cause__, Problem):
        return error.__cause__
    return Problem(error.status_code, error.message)


def _validation(request: HttpRequest, error: ValidationError) -> Problem:
    return invalid([FieldError(".".join(map(str, found["loc"][1:])), found["msg"]) for found in error.errors])


def _unavailable(request: HttpRequest, error: Exception) -> Problem:
    logger.warning("api request refused, %s: %s", type(error).__name__, _line(request, error))
    what = next((text for kind, text in AWAY if isinstance(error, kind)), "database does not answer")
    if isinstance(error, DatabaseFailure) and is_full(error):
        what = "disk of the database is full"
    return _failed(503, f"the {what}", error, retry_after_s=RETRY_AFTER_S)


def _full(request: HttpRequest, error: errors.QueueFull) -> Problem:
    logger.warning("api request refused: %s", _line(request, error))
    return _failed(429, f"queue {error.queue_name} holds as much work as it may", error, retry_after_s=RETRY_AFTER_S)


def _failed(status: int, what: str, error: Exception, *, retry_after_s: int | None = None) -> Problem:
    """Return the problem of a request that may be repeated: what is known of its jobs, and how to repeat it."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    jobs = current_request()
    if jobs is None:  # only a POST enqueues
        return Problem(status, f"{what}; send the request again", headers=headers)
    # Code of a host may enqueue past the platform's services, which note the outcome.
    jobs.in_doubt = jobs.in_doubt or getattr(error, "outcome", "") == UNKNOWN
    known = "nothing was enqueued" if jobs.outcome == NOT_ENQUEUED else "whether its work was enqueued is unknown"
    if jobs.has_key:
        advice = "send the request again with the same Idempotency-Key, its work is done once"
    elif jobs.outcome == NOT_ENQUEUED or jobs.safe_to_repeat:
        advice = "send the request again"
    else:
        advice = "sent again it may be done twice: look its jobs up first, and send an Idempotency-Key from now on"
    job_ids = jobs.job_ids if jobs.outcome == UNKNOWN else ()
    return Problem(status, f"{what}: {known}; {advice}", headers=headers, outcome=jobs.outcome, job_ids=job_ids)


def _unencodable(request: HttpRequest, error: errors.UnencodablePayload | ArgumentMisfit) -> Problem:
    logger.warning("api request refused: %s", _line(request, error))
    fact = error.fact if isinstance(error, ArgumentMisfit) else f"it {error.fact}"
    return invalid([FieldError("", f"holds a value that cannot be enqueued: {fact}")])


REFUSALS: tuple[tuple[Any, Callable[[HttpRequest, Any], Problem]], ...] = (
    (Problem, lambda request, error: error),
    (AuthenticationError, _unauthenticated),
    (HttpError, _http_error),
    (ValidationError, _validation),
    (errors.QueueFull, _full),
    (
        errors.PayloadTooLarge,
        lambda request, error: Problem(413, f"the job would be larger than {error.limit_bytes} bytes; send less"),
    ),
    ((errors.UnencodablePayload, ArgumentMisfit), _unencodable),
    ((errors.BrokerError, StorageError, errors.ResultStoreUnavailable), _unavailable),
    (Http404, lambda request, error: Problem(404, "nothing is here")),
    (errors.NotFound, lambda request, error: Problem(404, str(error))),
    (errors.ActRefused, lambda request, error: Problem(422, str(error))),
    (PermissionDenied, lambda request, error: Problem(403, str(error) or "this is not allowed")),
    (RequestDataTooBig, lambda request, error: Problem(413, "the body is too large; send less")),
    (
        (SuspiciousOperation, BadRequest, MultiPartParserError, UnreadablePostError),
        lambda request, error: Problem(400, "the request cannot be read; see how it was encoded"),
    ),
)
