"""This project's Django middleware: a policy for pages, missing static files, and refusals while keys are public."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from servestatic.middleware import ServeStaticMiddleware
from servestatic.responders import MissingFileError

from switchyard.api.middleware import of_each_response
from switchyard.operations.views import is_from_loopback

# Nothing from other servers, no frames, no forms to elsewhere. No page has a script in it: every one is a file of our
# own. Mails are shown with the styles in them.
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
REFUSAL = (
    "This web runs with the fixed keys of development and answers only this machine. "
    "Set DJANGO_SECRET_KEY to a random value of 50 characters or more, and SWITCHYARD_PAYMENT_SECRET to one of 32.\n"
)


@of_each_response
def content_security(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Add the Content Security Policy to pages that have none of their own."""
    if "Content-Security-Policy" not in response and response.get("Content-Type", "").startswith("text/html"):
        response["Content-Security-Policy"] = POLICY
    return response


class StaticFiles(ServeStaticMiddleware):
    """ServeStatic, which in development raises for a missing file: anybody could have Django's debug page that way."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return await super().__call__(request)
        except MissingFileError as missing:
            raise Http404(f"there is no static file {request.path_info}") from missing


@sync_and_async_middleware
def loopback_only(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Answer 403 to requests that come from another machine, or through a proxy, while keys are those of development.

    With them anybody forges sessions and payment events. The host names that development serves do not protect: a
    request names any host.
    """
    if iscoroutinefunction(get_response):

        async def of_async(request: HttpRequest) -> HttpResponseBase:
            return await get_response(request) if is_from_loopback(request) else _refusal()

        return of_async
    return lambda request: get_response(request) if is_from_loopback(request) else _refusal()


def _refusal() -> HttpResponse:
    return HttpResponse(REFUSAL, status=403, content_type="text/plain; charset=utf-8")
