"""Static files, with a plain 404 for one that does not exist."""

from __future__ import annotations

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from servestatic.middleware import ServeStaticMiddleware
from servestatic.responders import MissingFileError


class StaticFiles(ServeStaticMiddleware):
    """ServeStatic, which in development raises for a missing file: anybody could have Django's debug page that way."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return await super().__call__(request)
        except MissingFileError as missing:
            raise Http404(f"there is no static file {request.path_info}") from missing
