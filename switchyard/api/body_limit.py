"""Limits on request bodies and on running requests, enforced before Django, which would write any body to disk."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, connections

from switchyard.api.full_tokens import is_stream, refuse_full
from switchyard.api.heads.bounded_fields import refuse_large_cookies, refuse_unreadable_type
from switchyard.api.problems import CONTENT_TYPE, Problem

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
# Returns the scopes of a valid token.
CheckToken = Callable[[str], Awaitable[Collection[str] | None]]

KIB = 1024
MIB = 1024 * KIB
RETRY_AFTER = {"Retry-After": "5"}
NO_TOKEN = {"WWW-Authenticate": 'Bearer realm="switchyard"'}
LARGE_SCOPE = "submit"
# Answered however many requests run: an orchestrator would restart a busy web.
PROBES = frozenset({"/healthz", "/readyz"})


class Places:
    """A number of places, given in the order of asking.

    Args:
        count: How many there are.
        share: How many of them one holder may have.
    """

    def __init__(self, count: int, share: float = 1.0) -> None:
        self._free = count
        self._most = max(1, int(count * share))
        self._held: Counter[str] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def acquire(self, holder: str = "") -> RequestPlace | None:
        """Return a place, ``None`` when all are taken, or as many by the holder as it may have."""
        if self._free == 0 or (holder and self._held[holder] >= self._most):
            return None
        self._free -= 1
        if holder:
            self._held[holder] += 1
        return RequestPlace(self, holder)

    async def acquire_within(self, timeout_s: float) -> RequestPlace | None:
        """Return a place as soon as one is free, ``None`` when none is in time."""
        place = self.acquire()
        if place is not None:
            return place
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came together with the end of the wait
                self.release()
            turn.cancel()
            if isinstance(error, TimeoutError):
                return None
            raise
        return RequestPlace(self)

    def release(self, holder: str = "") -> None:
        """Give a place to whoever has waited longest."""
        if holder:
            self._held[holder] -= 1
            if self._held[holder] == 0:
                del self._held[holder]
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class RequestPlace:
    """One of the places, until its context is left or it is released."""

    def __init__(self, places: Places | None = None, holder: str = "") -> None:
        self._places = places
        self._holder = holder

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the place, once."""
        places, self._places = self._places, None
        if places is not None:
            places.release(self._holder)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits on the requests of one web process.

    Args:
        body_bytes: Largest body of any route.
        large_body_bytes: Largest multipart body of a ``POST`` to one of the large routes, with a valid token.
        free_bytes: Received before the token is checked; what every client may make the web hold.
        timeout_s, large_timeout_s: Time in which a body must be complete.
        anonymous, known, large: Bodies above ``free_bytes`` that are read at once: without a valid token, with one, and
            on large routes.
        share: Part of these places that one token, or without one an address, may hold.
        requests: Requests that run in Django at once, each in a thread, until their answer begins.
        streams: Event streams that begin at once, beside the other requests.
        wait_s: Time that a further request waits for its turn.
    """

    body_bytes: int = MIB
    large_body_bytes: int = 21 * MIB
    free_bytes: int = 16 * KIB
    timeout_s: float = 30.0
    large_timeout_s: float = 120.0
    anonymous: int = 8
    known: int = 32
    large: int = 4
    share: float = 0.5
    requests: int = 32
    streams: int = 2
    wait_s: float = 5.0


@dataclass(slots=True)
class _Body:
    """Size of a request's body so far, and the limits of the rest."""

    limit_bytes: int
    deadline_s: float
    timeout_s: float
    received: list[Message] = field(default_factory=list)
    seen_bytes: int = 0
    complete: bool = False
    refusal: Problem | None = None


class BodyLimit:
    """ASGI middleware that bounds bodies in size, time and number, and the number of running requests.

    Bodies up to 16 KiB are read before Django sees the request, so that a slow client holds no thread. Of a larger one
    the token is checked first. Refusals: 401, 408, 413, and 503 with ``Retry-After``.

    Args:
        application: The ASGI application behind.
        large_routes: Paths that accept ``multipart/form-data`` up to ``large_body_bytes``, from tokens with the scope
            ``submit`` only.
        check_token: Returns the scopes of a bearer token, ``None`` if it is not valid; by default of the API's tokens.
    """

    def __init__(
        self,
        application: Application,
        *,
        large_routes: tuple[str, ...] = (),
        limits: RequestLimits = RequestLimits(),
        check_token: CheckToken | None = None,
    ) -> None:
        self.application = application
        self.large_routes = frozenset(large_routes)
        self.limits = limits
        self._check_token = check_token or _scopes_of
        self._anonymous, self._known, self._large = (
            Places(limits.anonymous, limits.share),
            Places(limits.known, limits.share),
            Places(limits.large, limits.share),
        )
        self._requests, self._streams = Places(limits.requests), Places(limits.streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        try:
            await self._bounded(scope, receive, send)
        except Problem as problem:
            await _answer(problem, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_unreadable_type(_values(scope, b"content-type"))
        refuse_large_cookies(_values(scope, b"cookie"))
        declared = _declared(scope)
        is_large = self._is_large_route(scope) and (declared is None or declared > self.limits.body_bytes)
        limit_bytes = self.limits.large_body_bytes if is_large else self.limits.body_bytes
        if declared is not None and declared > limit_bytes:
            raise _too_large(limit_bytes)
        timeout_s = self.limits.large_timeout_s if is_large else self.limits.timeout_s
        body = _Body(limit_bytes, time.monotonic() + timeout_s, timeout_s, complete=_has_no_body(scope, declared))
        if declared is None or declared <= self.limits.free_bytes:
            await self._read_free_part(body, receive)
        with RequestPlace() if body.complete else await self._place(scope, is_large=is_large):
            await self._run(scope, body, receive, send)

    async def _read_free_part(self, body: _Body, receive: Receive) -> None:
        while not body.complete and body.seen_bytes <= self.limits.free_bytes:
            message = await _receive_in_time(body, receive)
            if body.refusal is not None:
                raise body.refusal
            body.received.append(message)

    async def _place(self, scope: Scope, *, is_large: bool) -> RequestPlace:
        """Return the place of a body above the free part."""
        plain = _token(scope)
        try:
            scopes = await self._check_token(plain) if plain else None
        except DatabaseError as error:
            raise Problem(503, "the database does not answer; send the request again", headers=RETRY_AFTER) from error
        known = scopes is not None
        if is_large and scopes is None:
            raise Problem(401, "a large body needs a valid token; send Authorization: Bearer sy_…", headers=NO_TOKEN)
        if is_large and scopes is not None and LARGE_SCOPE not in scopes:
            raise Problem(403, f"a large body needs a token with the scope {LARGE_SCOPE}; use one that has it")
        places = self._large if is_large else self._known if known else self._anonymous
        place = places.acquire(plain if known else (scope.get("client") or ("",))[0])
        if place is None:
            raise Problem(503, "too many large bodies are being read; send it again later", headers=RETRY_AFTER)
        return place

    async def _run(self, scope: Scope, body: _Body, receive: Receive, send: Send) -> None:
        streams = is_stream(scope.get("method", ""), scope["path"])
        places = self._streams if streams else self._requests
        is_probe = scope["path"] in PROBES
        place = RequestPlace() if is_probe else await places.acquire_within(self.limits.wait_s)
        if place is None:
            raise Problem(503, "as many requests run as may; send it again later", headers=RETRY_AFTER)
        started = False

        async def receive_in_time() -> Message:
            if body.received:
                return body.received.pop(0)
            # The application handles a disconnected client.
            return {"type": "http.disconnect"} if body.refusal else await _receive_in_time(body, receive)

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":  # the rest goes at the pace of the client
                place.release()
            await send(message)

        with place:
            if streams:  # without a thread, the database or the broker: a burst of them costs little
                refuse_full(_token(scope))
            await self.application(scope, receive_in_time, send_noted)
        if body.refusal is not None and not started:
            raise body.refusal

    def _is_large_route(self, scope: Scope) -> bool:
        multipart = _header(scope, b"content-type").strip().lower().startswith(b"multipart/form-data")
        return multipart and scope.get("method") == "POST" and scope["path"] in self.large_routes


async def _receive_in_time(body: _Body, receive: Receive) -> Message:
    """Return the next part of a body; a disconnect, with the refusal noted, when it is too large or too late."""
    if body.complete:
        return await receive()  # waits for the client to disconnect
    try:
        async with asyncio.timeout(body.deadline_s - time.monotonic()):
            message = await receive()
    except TimeoutError:
        body.refusal = Problem(408, f"the body was not complete after {body.timeout_s:g} s; send it faster")
        return {"type": "http.disconnect"}
    body.seen_bytes += len(message.get("body", b""))
    body.complete = not message.get("more_body", False)
    if body.seen_bytes > body.limit_bytes:
        body.refusal = _too_large(body.limit_bytes)
        return {"type": "http.disconnect"}
    return message


def _declared(scope: Scope) -> int | None:
    """Return the declared length of the body, ``None`` if there is none.

    Raises:
        Problem: query or length cannot be read, or the query has too many parameters.
    """
    query = scope.get("query_string", b"")
    if not query.isascii():
        raise Problem(400, "the query is not percent-encoded; encode it")
    # Django refuses it too, but with DEBUG its page about that reads the query again and fails.
    most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    if most is not None and (found := query.count(b"&") + 1) > most:
        raise Problem(400, f"the query has {found:,} parameters, at most {most:,} are read; send fewer")
    declared = _header(scope, b"content-length")
    if not declared:
        return None
    # isdigit() alone accepts digits beyond ASCII; int() accepts signs and underscores.
    if not (declared.isascii() and declared.isdigit()) or len(declared) > 18:
        raise Problem(400, "Content-Length: not a number of bytes")
    return int(declared)


def _has_no_body(scope: Scope, declared: int | None) -> bool:
    """Return whether a request has no body, by its head alone; later versions of HTTP need no header for one."""
    is_http_1 = str(scope.get("http_version", "")).startswith("1")
    return declared == 0 or (declared is None and is_http_1 and not _header(scope, b"transfer-encoding"))


async def _scopes_of(plain: str) -> Collection[str] | None:
    return await sync_to_async(_find_and_close, thread_sensitive=False)(plain)


def _find_and_close(plain: str) -> Collection[str] | None:
    # Imported here: models need settings, and an ``asgi.py`` imports this module before them.
    from switchyard.api.tokens import find_token

    try:
        token = find_token(plain)
        return None if token is None else list(token.scopes)
    finally:
        connections.close_all()  # of this thread, which no request uses


def _header(scope: Scope, name: bytes) -> bytes:
    return next(iter(_values(scope, name)), b"")


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _token(scope: Scope) -> str:
    """Return the bearer token of a request, unchecked; "" without one."""
    scheme, _, plain = _header(scope, b"authorization").decode("latin-1").partition(" ")
    return plain.strip() if scheme.lower() == "bearer" else ""


def _too_large(limit_bytes: int) -> Problem:
    return Problem(413, f"the body is larger than {limit_bytes} bytes; send less")


async def _answer(problem: Problem, send: Send) -> None:
    body = problem.encoded()
    headers = {"content-type": CONTENT_TYPE, "content-length": str(len(body)), **problem.headers}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
