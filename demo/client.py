"""Client of the yard's HTTP API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from demo.errors import DemoError

TIMEOUT_S = 10.0


class RequestFailed(DemoError):
    """The API refused a request, or did not answer."""

    def __init__(self, method: str, path: str, fact: str) -> None:
        super().__init__(f"{method} {path}: {fact}; see the log of the part `web`")


@dataclass(frozen=True, slots=True)
class Answer:
    """Response of the API."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Client:
    """Client that sends requests with a token. Safe to share between threads."""

    def __init__(self, site: str, token: str) -> None:
        self._site = site.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {token}"}
        # Retries are set per request, see `send`: only where no byte was sent, or a repetition does no harm.
        self._pool = urllib3.PoolManager(retries=False, maxsize=4, timeout=TIMEOUT_S)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        key: str = "",
        anonymous: bool = False,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        Args:
            path: Path below the site's root, or an absolute URL from an answer of the API.
            body: Value sent as JSON.
            raw: Body sent unchanged.
            fields: Fields of a multipart form, files included.
            key: ``Idempotency-Key``; with one, and for GET, a lost answer is requested again.
            anonymous: Send no token.

        Raises:
            RequestFailed: no answer.
        """
        sent = (
            ({} if anonymous else dict(self._authorization))
            | dict(headers or {})
            | ({"Idempotency-Key": key} if key else {})
        )
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        retries = urllib3.Retry(connect=3, read=2, status=0, redirect=0, backoff_factor=0.2, allowed_methods=None)
        try:
            answer = self._pool.request(
                method,
                self._site + path.removeprefix(self._site),
                body=raw,
                fields=fields,
                headers=sent,
                retries=retries if key or method == "GET" else urllib3.Retry(connect=3, read=0, status=0, redirect=0),
            )
        except urllib3.exceptions.HTTPError as error:
            raise RequestFailed(method, path, type(error).__name__) from error
        return Answer(answer.status, answer.headers, answer.data)

    def ask(self, method: str, path: str, *, expect: int, **more: Any) -> Any:
        """Send one request and return its JSON.

        Raises:
            RequestFailed: no answer, or another status than ``expect``.
        """
        answer = self.send(method, path, **more)
        if answer.status != expect:
            said = answer.body[:300].decode(errors="replace")
            raise RequestFailed(method, path, f"answered {answer.status} instead of {expect}: {said}")
        return answer.json()
