"""Django middleware that writes the id and the user of a request into the origin of the jobs that it enqueues."""

import re
import secrets
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from switchyard.middleware.envelope import sent_by
from switchyard.middleware.logs import REQUEST_ID

HEADER = "X-Request-ID"
USABLE_ID = re.compile(r"[\w.:+/=@-]{1,64}")


def request_id(request: HttpRequest) -> str:
    """Return the id of a request; "" where it failed before it had one."""
    return str(request.META.get(REQUEST_ID, ""))


@sync_and_async_middleware
def request_origin(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Keep a request as the sender of its jobs, and name its id in the header ``X-Request-ID`` of the response.

    The id is the one that a proxy passed on in that header, or a new one.
    """
    if iscoroutinefunction(get_response):

        async def of_async(request: HttpRequest) -> HttpResponseBase:
            with sent_by(_origin_of(request)):
                return _named(await get_response(request), request)

        return of_async

    def of_sync(request: HttpRequest) -> HttpResponseBase:
        with sent_by(_origin_of(request)):
            return _named(get_response(request), request)

    return of_sync


def _origin_of(request: HttpRequest) -> Callable[[], dict[str, str]]:
    """Give a request its id; return what reads it with the user, or the token's name, once these are known."""
    given = request.headers.get(HEADER, "")
    request.META[REQUEST_ID] = given if USABLE_ID.fullmatch(given) else secrets.token_hex(8)

    def origin() -> dict[str, str]:
        token: Any = getattr(request, "auth", None)
        user: Any = getattr(request, "_cached_user", None)  # asks no database: one that nobody loaded stays unnamed
        found = {"request": request_id(request)}
        if getattr(token, "prefix", None) is not None:
            found["user"] = f"token {token.name}"
        elif user is not None and user.is_authenticated and user.get_username():
            found["user"] = str(user.get_username())
        return found

    return origin


def _named(response: HttpResponseBase, request: HttpRequest) -> HttpResponseBase:
    response.headers.setdefault(HEADER, request_id(request))
    return response
