"""As much of a browser as a log-in takes."""

from __future__ import annotations

import re
from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener


class Browser:
    """Fetches pages and keeps cookies."""

    def __init__(self) -> None:
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, url: str) -> tuple[int, str]:
        """Return status and text of a page, after redirects."""
        return self._open(Request(url))

    def log_in(self, url: str, username: str, password: str) -> tuple[int, str]:
        """Fill in the log-in form that an address redirects to, and return status and text of that address then."""
        _, form = self.get(url)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        assert token is not None, form
        path = re.sub(r"^https?://[^/]+", "", url)
        fields = {"csrfmiddlewaretoken": token[1], "username": username, "password": password, "next": path}
        root = url.removesuffix(path)
        request = Request(f"{root}/admin/login/", urlencode(fields).encode(), {"Referer": url})
        return self._open(request)

    def _open(self, request: Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=30) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
