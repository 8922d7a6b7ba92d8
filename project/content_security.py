"""Content Security Policy of every page: nothing from other servers, no frames, no forms to elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

# No page has a script in it: every one is a file of our own. Mails are shown with the styles in them.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


@sync_and_async_middleware
def content_security(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Add the policy to responses that have none of their own."""
    if iscoroutinefunction(get_response):

        async def of_async(request: HttpRequest) -> HttpResponseBase:
            return _with_policy(await get_response(request))

        return of_async

    def of_sync(request: HttpRequest) -> HttpResponseBase:
        return _with_policy(get_response(request))

    return of_sync


def _with_policy(response: HttpResponseBase) -> HttpResponseBase:
    if "Content-Security-Policy" not in response and response.get("Content-Type", "").startswith("text/html"):
        response["Content-Security-Policy"] = POLICY
    return response
