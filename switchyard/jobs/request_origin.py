"""Django middleware that writes the id and the user of a request into the origin of the jobs that it enqueues."""

from __future__ import annotations

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


class RequestSender:
    """The request as the source of jobs. Asks no database: a user that nobody loaded stays unnamed."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        given = request.headers.get(HEADER, "")
        self.id = given if USABLE_ID.fullmatch(given) else secrets.token_hex(8)
        request.META[REQUEST_ID] = self.id

    def origin(self) -> dict[str, str]:
        """Return the id of the request, and its user or the name of its token."""
        user = self._user()
        return {"request": self.id, "user": user} if user else {"request": self.id}

    def named(self, response: HttpResponseBase) -> HttpResponseBase:
        """Return a response with the id of the request in its header."""
        response.headers.setdefault(HEADER, self.id)
        return response

    def _user(self) -> str:
        token: Any = getattr(self._request, "auth", None)
        if getattr(token, "prefix", None) is not None:
            return f"token {token.name}"
        user: Any = getattr(self._request, "_cached_user", None)
        return str(user.get_username()) if user is not None and user.is_authenticated else ""


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
            sender = RequestSender(request)
            with sent_by(sender.origin):
                return sender.named(await get_response(request))

        return of_async

    def of_sync(request: HttpRequest) -> HttpResponseBase:
        sender = RequestSender(request)
        with sent_by(sender.origin):
            return sender.named(get_response(request))

    return of_sync
