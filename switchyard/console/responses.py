"""Django middleware that change each response, in a synchronous or an asynchronous web alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

GetResponse = Callable[[HttpRequest], Any]


def of_each_response(change: Callable[[HttpRequest, Any], HttpResponseBase]) -> Callable[[GetResponse], GetResponse]:
    """Return the middleware that passes each response through a function, with its request."""

    @sync_and_async_middleware
    @wraps(change)
    def middleware(get_response: GetResponse) -> GetResponse:
        if iscoroutinefunction(get_response):

            async def of_async(request: HttpRequest) -> HttpResponseBase:
                return change(request, await get_response(request))

            return of_async
        return lambda request: change(request, get_response(request))

    return middleware
