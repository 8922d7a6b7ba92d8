"""Pages of requests that fail. None asks the database, the broker or the session, which may be why."""

import sys
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.template import loader
from django.utils import timezone

from switchyard.files.addresses import is_full
from switchyard.frame.views import THEME_COOKIE, THEMES
from switchyard.jobs.request_origin import request_id

log = structlog.get_logger(__name__)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that cannot be read."""
    return _page(request, "400.html", HTTPStatus.BAD_REQUEST)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a request that an error of the program, or a full disk, ended; log its id beside Django's traceback."""
    kind, error, _ = sys.exc_info()
    full = isinstance(error, OperationalError) and is_full(error)
    log.error(
        f"a page was not shown: {'the disk of the database is full' if full else 'the program failed'}",
        request_id=request_id(request),
        method=request.method,
        path=request.path[:200],
        exception=getattr(kind, "__name__", ""),
    )
    status = HTTPStatus.SERVICE_UNAVAILABLE if full else HTTPStatus.INTERNAL_SERVER_ERROR
    return _page(request, "500.html", status, full=full)


def login_paused(
    request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """Answer a login that had too many failures, of one user name from one address; the password is not checked."""
    pause: timedelta = settings.AXES_COOLOFF_TIME
    page = _page(request, "429.html", HTTPStatus.TOO_MANY_REQUESTS, minutes=pause // timedelta(minutes=1))
    page["Retry-After"] = str(int(pause.total_seconds()))
    return page


def _page(request: HttpRequest, template: str, status: HTTPStatus, **more: Any) -> HttpResponse:
    theme = request.COOKIES.get(THEME_COOKIE, "")
    context: dict[str, Any] = {
        "theme": theme if theme in THEMES else "",
        "request_id": request_id(request),
        "reads": request.method in ("GET", "HEAD"),
        "at": timezone.now(),
        **more,
    }
    # Without the request: context processors ask the database for its user.
    page = loader.get_template(template).render(context)
    return HttpResponse(page, status=status, headers={"Cache-Control": "no-store"})
