"""Problem documents for requests that reach no operation: unknown paths, wrong methods, malformed requests."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import sync_and_async_middleware

from switchyard.api.problems import CONTENT_TYPE, Problem

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


# Path of the API below the site's root. Here, not in application.py: this middleware runs without ninja as well.
PREFIX = "api/v1/"
NAMESPACE = "switchyard_api"
DETAILS = {
    400: "the request cannot be read; see how it was encoded",
    403: "this is not allowed",
    404: "nothing is here; see {root}docs",
    405: "{method} is not known here",
    413: "the body is too large; send less",
    500: "something went wrong on our side; it was logged, try again later",
}


@of_each_response
def problem_documents(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Turn every refusal below the API's root into a problem document, and forbid caching of all responses there.

    A project may have an API of its own below ``api/v1/``: its operations keep their answers.
    """
    match = request.resolver_match
    if match is not None and NAMESPACE not in match.namespaces:
        return response
    try:
        root = reverse(f"{NAMESPACE}:api-root")
    except NoReverseMatch:  # without django-ninja there is no API
        return response
    if match is None and not f"{request.path}/".startswith(root):
        return response
    if response.status_code >= 400 and response.get("Content-Type") != CONTENT_TYPE:
        response = _as_problem(request, response, root)
    if "Cache-Control" not in response:
        response["Cache-Control"] = "no-store"
    return response


def _as_problem(request: HttpRequest, response: HttpResponseBase, root: str) -> HttpResponseBase:
    detail = DETAILS.get(response.status_code, "the request is refused").format(root=root, method=request.method)
    problem = Problem(response.status_code, detail)
    if not isinstance(response, HttpResponse):
        response.close()
        return problem.response()
    response.content = problem.encoded()
    response["Content-Type"] = CONTENT_TYPE
    if "Content-Length" in response:
        response["Content-Length"] = str(len(response.content))
    if "Allow" in response:
        response["Allow"] = ", ".join(sorted(response["Allow"].split(", ")))
    return response
