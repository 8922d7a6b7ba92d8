"""Limit on request bodies, enforced before Django, which would first write the whole body to disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from apps.platform.api.problems import CONTENT_TYPE, Problem

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MIB = 1024 * 1024


class BodyLimit:
    """ASGI middleware that refuses bodies over a limit with 413: by ``Content-Length``, else while the body is read.

    Args:
        application: The ASGI application behind.
        limit_bytes: Largest body; multipart bodies have their own limit.
        multipart_limit_bytes: Largest ``multipart/form-data`` body.
    """

    def __init__(
        self, application: Application, *, limit_bytes: int = MIB, multipart_limit_bytes: int = 21 * MIB
    ) -> None:
        self.application = application
        self.limit_bytes = limit_bytes
        self.multipart_limit_bytes = multipart_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(refusal, send)
            return
        await self._counted(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        if not scope.get("query_string", b"").isascii():
            return Problem(400, "the query is not percent-encoded; encode it")
        declared = _header(scope, b"content-length")
        if not declared:
            return None
        # isdigit() alone accepts digits beyond ASCII; int() accepts signs and underscores.
        if not (declared.isascii() and declared.isdigit()) or len(declared) > 18:
            return Problem(400, "Content-Length: not a number of bytes")
        limit_bytes = self._limit(scope)
        return _too_large(limit_bytes) if int(declared) > limit_bytes else None

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit_bytes = self._limit(scope)
        seen_bytes = 0
        started = False

        async def receive_counted() -> Message:
            nonlocal seen_bytes
            if seen_bytes <= limit_bytes:
                message = await receive()
                seen_bytes += len(message.get("body", b""))
            # The application handles a disconnected client.
            return message if seen_bytes <= limit_bytes else {"type": "http.disconnect"}

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self.application(scope, receive_counted, send_noted)
        if seen_bytes > limit_bytes and not started:
            await _answer(_too_large(limit_bytes), send)

    def _limit(self, scope: Scope) -> int:
        multipart = _header(scope, b"content-type").strip().lower().startswith(b"multipart/form-data")
        return self.multipart_limit_bytes if multipart else self.limit_bytes


def _header(scope: Scope, name: bytes) -> bytes:
    found: bytes = next((value for key, value in scope["headers"] if key.lower() == name), b"")
    return found


def _too_large(limit_bytes: int) -> Problem:
    return Problem(413, f"the body is larger than {limit_bytes} bytes; send less")


async def _answer(problem: Problem, send: Send) -> None:
    body = problem.encoded()
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
