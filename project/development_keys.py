"""Refusal of requests from elsewhere while keys are the fixed ones of development, which everybody knows.

With them anybody forges sessions and payment events. The host names that development serves do not protect: a request
names any host.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from switchyard.operations.views import is_from_loopback

REFUSAL = (
    "This web runs with the fixed keys of development and answers only this machine. "
    "Set DJANGO_SECRET_KEY to a random value of 50 characters or more, and SWITCHYARD_PAYMENT_SECRET to one of 32.\n"
)


@sync_and_async_middleware
def loopback_only(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Answer 403 to requests that come from another machine, or through a proxy."""
    if iscoroutinefunction(get_response):

        async def of_async(request: HttpRequest) -> HttpResponseBase:
            response: HttpResponseBase = await get_response(request) if is_from_loopback(request) else _refusal()
            return response

        return of_async

    def of_sync(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = get_response(request) if is_from_loopback(request) else _refusal()
        return response

    return of_sync


def _refusal() -> HttpResponse:
    return HttpResponse(REFUSAL, status=403, content_type="text/plain; charset=utf-8")
