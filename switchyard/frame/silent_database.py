"""Django middleware that limits how long a request waits for PostgreSQL, and answers with a page that names it."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import InterfaceError, OperationalError, connection
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from switchyard.console.room_view import RoomResponse
from switchyard.files.addresses import is_full
from switchyard.loggers import get_logger
from switchyard.operations.timeouts import each_statement_within, limit_connection

# A page is read again soon; an act may run statements that take their time.
READ_S, WRITE_S = 4.5, 20.0
RETRY_AFTER_S = 10
# Errors of a server that ends, refuses connections or has no room for one: https://www.postgresql.org/docs/current/errcodes-appendix.html
AWAY = ("08", "57P", "53")

log = get_logger(__name__)


class SilentDatabase:
    """Limit each statement of a request; a request that fails for the want of an answer gets 503 and a page.

    Every page reads the session and the rights of its user first: a server that stands still, its connections open,
    would keep the page from answering for ever.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        # Here, and not where the app starts: only web processes wait less than their statements take.
        connection_created.connect(limit_connection, dispatch_uid="switchyard limit of statements")
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer(request)
        with each_statement_within(_limit_s(request)):  # a stream that the response opens later has no limit
            response: HttpResponseBase = self._get_response(request)
        return response

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with each_statement_within(_limit_s(request)):
            response: HttpResponseBase = await self._get_response(request)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view that the database did not answer; other errors stay as they are."""
        if not _is_silence(exception):
            return None
        log.error("a page was not shown: the database does not answer", path=request.path, error=str(exception)[:200])
        limit_s = _limit_s(request)
        context = {"limit_s": limit_s, "reads": limit_s == READ_S, "again_s": RETRY_AFTER_S}
        response = RoomResponse(request, "switchyard_frame/database_silent.html", context, status=503).render()
        response["Retry-After"], response["Cache-Control"] = str(RETRY_AFTER_S), "no-store"
        return response


def _limit_s(request: HttpRequest) -> float:
    return READ_S if request.method in ("GET", "HEAD", "OPTIONS") else WRITE_S


def _is_silence(error: Exception) -> bool:
    """Return whether PostgreSQL gave no answer, or none but that it serves nobody."""
    if connection.vendor != "postgresql" or not isinstance(error, OperationalError | InterfaceError) or is_full(error):
        return False
    state = getattr(error.__cause__, "sqlstate", None)
    return state is None or state.startswith(AWAY)
