"""Limits on request bodies and on running requests, enforced before Django, which would write any body to disk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any
from weakref import WeakValueDictionary

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.utils.http import parse_header_parameters

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
# Received before a request has a place, so that a slow client holds none for a small body.
FREE_BYTES = 16 * KIB
# The rest of a refused body is discarded for this long, so that its client reads the answer instead of a reset.
LINGER_S = 2.0
# Python reads these in time that grows with the square of the length: 3 s for a cookie of 32 KiB (CVE-2024-7592).
LONGEST = {b"cookie": 8 * KIB, b"content-type": 512}
RETRY_AFTER = {"Retry-After": "5"}
NO_TOKEN = {"WWW-Authenticate": 'Bearer realm="switchyard"'}
LARGE_SCOPE = "submit"
# Valid tokens are looked up once a minute for their share; as many are kept.
VALID_S, VALID_TOKENS = 60.0, 1_000
# Answered however many requests run: an orchestrator would restart a busy web.
PROBES = frozenset({"/healthz", "/readyz"})


class Places:
    """Places of running requests, of which one caller may have a share."""

    def __init__(self, count: int, share: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._most = max(1, int(count * share))
        # Of each caller that has a place or waits for one.
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, caller: str, wait_s: float) -> ExitStack:
        """Return a place, free again when it is closed; ``Problem`` 429 where the caller has its share, 503 else."""
        own = self._own.setdefault(caller, asyncio.Semaphore(self._most))
        refusal = Problem(429, f"{self._most} of your requests run, the most at once; wait", headers=RETRY_AFTER)
        with ExitStack() as place:
            try:
                async with asyncio.timeout(wait_s):
                    await own.acquire()
                    place.callback(own.release)
                    refusal = Problem(503, "as many requests run as may; send it again later", headers=RETRY_AFTER)
                    await self._free.acquire()
                    place.callback(self._free.release)
            except TimeoutError:
                raise refusal from None
            return place.pop_all()


class RequestBody:
    """A request's body: its size, the time that it may take, and what was received before the application reads it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._early: list[Message] = []
        self._seen_bytes = 0
        self.complete = False
        self.refusal: Problem | None = None

    def allow(self, limit_bytes: int, timeout_s: float) -> None:
        """Set the largest size, and the time from now on."""
        self._limit_bytes, self._timeout_s = limit_bytes, timeout_s
        self._deadline_s = asyncio.get_running_loop().time() + timeout_s

    async def read_early(self) -> None:
        """Receive all of a small body, or a little of a larger one; ``Problem`` 408 or 413."""
        while not self.complete and self._seen_bytes <= FREE_BYTES:
            self._early.append(await self._next())
            if self.refusal is not None:
                raise self.refusal

    async def receive(self) -> Message:
        """Return the next part; a disconnect, with the refusal noted, when the body is too large or too late."""
        if self._early:
            return self._early.pop(0)
        # The application handles a client that went.
        return {"type": "http.disconnect"} if self.refusal else await self._next()

    async def discard(self) -> None:
        """Receive the rest, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.complete:
                    self.complete = not (await self._receive()).get("more_body", False)

    async def _next(self) -> Message:
        if self.complete:
            return await self._receive()  # waits for the client to disconnect
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            self.refusal = Problem(408, f"the body was not complete after {self._timeout_s:g} s; send it faster")
            return {"type": "http.disconnect"}
        self._seen_bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._seen_bytes > self._limit_bytes:
            self.refusal = _too_large(self._limit_bytes)
            return {"type": "http.disconnect"}
        return message


class RequestLimits:
    """ASGI middleware that bounds bodies in size and time, and the number of running requests.

    A request runs, in a thread of Django, until its answer begins. One caller, known by its token or else by its
    address, has a share of the places, and waits for its turn. Refusals: 400, 401, 403, 408, 413, 429, 431 and 503.

    Args:
        application: The ASGI application behind.
        large_routes: Paths whose ``POST`` takes ``multipart/form-data`` up to ``large_body_bytes``, from tokens with
            the scope ``submit`` only.
        body_bytes: Largest body of any other route.
        timeout_s, large_timeout_s: Time in which a body must be complete.
        requests, large_requests: Requests, and those with a large body, that run at once.
        unknown_requests: Requests that run at once, of those without a valid token that send more than 16 KiB.
        share: Part of these that one caller may have.
        wait_s: Time that a further request waits for its turn.
        check_token: Returns the scopes of a bearer token, ``None`` if it is not valid; by default of the API's tokens.
    """

    def __init__(
        self,
        application: Application,
        *,
        large_routes: tuple[str, ...] = (),
        body_bytes: int = MIB,
        large_body_bytes: int = 21 * MIB,
        timeout_s: float = 30.0,
        large_timeout_s: float = 120.0,
        requests: int = 32,
        large_requests: int = 4,
        unknown_requests: int = 8,
        share: float = 0.5,
        wait_s: float = 5.0,
        check_token: CheckToken | None = None,
    ) -> None:
        self.application = application
        self.large_routes = frozenset(large_routes)
        self.body_bytes, self.large_body_bytes = body_bytes, large_body_bytes
        self.timeout_s, self.large_timeout_s = timeout_s, large_timeout_s
        self.wait_s = wait_s
        self._check_token = check_token or sync_to_async(_scopes_of, thread_sensitive=False)
        self._places, self._large_places = Places(requests, share), Places(large_requests, share)
        # Apart, so that slow clients of a few addresses hold up nobody else.
        self._unknown_places = Places(unknown_requests, share)
        self._look_ups = Places(unknown_requests, share)
        self._valid_until_s: dict[str, float] = {}  # tokens that need not be looked up again for their share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        body = RequestBody(receive)
        try:
            await self._bounded(scope, body, send)
        except Problem as problem:
            await _answer(problem, scope, body, send)

    async def _bounded(self, scope: Scope, body: RequestBody, send: Send) -> None:
        headers = _readable(scope["headers"])
        length = headers.get(b"content-length", b"")
        declared = int(length) if length.isdigit() and len(length) < 20 else None
        multipart = headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/form-data")
        large = multipart and scope.get("method") == "POST" and scope["path"] in self.large_routes
        large = large and (declared is None or declared > self.body_bytes)
        limit_bytes = self.large_body_bytes if large else self.body_bytes
        if declared is not None and declared > limit_bytes:
            raise _too_large(limit_bytes)
        body.allow(limit_bytes, self.large_timeout_s if large else self.timeout_s)
        if declared is None or declared <= FREE_BYTES:
            await body.read_early()
        waits = scope["path"] not in PROBES or not body.complete
        with await self._place(scope, headers, large=large, complete=body.complete) if waits else ExitStack() as place:
            await self._run(scope, body, send, place)

    async def _place(self, scope: Scope, headers: dict[bytes, bytes], *, large: bool, complete: bool) -> ExitStack:
        """Return a place of the caller's share. An unchecked token is refused soon, but its body may take long."""
        address = str((scope.get("client") or ("",))[0])
        scheme, _, plain = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token = plain.strip() if scheme.lower() == "bearer" else ""
        if complete:
            return await self._place_of(token, address)
        try:
            scopes = await self._check_token(token) if token else None
        except DatabaseError as error:
            raise Problem(503, "the database does not answer; send the request again", headers=RETRY_AFTER) from error
        if scopes is None and large:
            raise Problem(401, "a large body needs a valid token; send Authorization: Bearer sy_…", headers=NO_TOKEN)
        if scopes is None:
            return await self._unknown_places.take(address, self.wait_s)
        if large and LARGE_SCOPE not in scopes:
            raise Problem(403, f"a large body needs a token with the scope {LARGE_SCOPE}; use one that has it")
        return await (self._large_places if large else self._places).take(token, self.wait_s)

    async def _place_of(self, token: str, address: str) -> ExitStack:
        """Return a place of a token's share if it is valid, else of the address's: made-up tokens have none."""
        if self._valid_until_s.get(token, 0.0) > time.monotonic():
            return await self._places.take(token, self.wait_s)
        if token:
            with await self._look_ups.take(address, self.wait_s), suppress(DatabaseError):  # the application tells that
                if await self._check_token(token) is not None:
                    if len(self._valid_until_s) >= VALID_TOKENS:
                        self._valid_until_s.clear()
                    self._valid_until_s[token] = time.monotonic() + VALID_S
                    address = token
        return await self._places.take(address, self.wait_s)

    async def _run(self, scope: Scope, body: RequestBody, send: Send, place: ExitStack) -> None:
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            place.close()  # the rest goes at the pace of the client
            await send(message)

        await self.application(scope, body.receive, send_noted)
        if body.refusal is not None and not started:
            raise body.refusal


def _readable(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name, as Django has them; ``Problem`` for those at which Python or Django fail or take long."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = found[name] + b"," + value if name in found else value
    for name, most in LONGEST.items():
        if (size := len(found.get(name, b""))) > most:
            raise Problem(431, f"{name.decode()}: has {size} bytes, {most} are the most; send less")
    if b"*" in found.get(b"content-type", b""):
        raise Problem(400, "content-type: has a parameter that is encoded by RFC 2231; write it as it is")
    _, parameters = parse_header_parameters(found.get(b"content-type", b"").decode("latin-1"))
    if (charset := parameters.get("charset", "utf-8")).lower() not in ("utf-8", "utf8"):
        # Django decodes each field by any codec of Python; punycode takes minutes for a mebibyte.
        raise Problem(400, f"content-type: has the charset {charset!r:.50}; send UTF-8")
    return found


def _scopes_of(plain: str) -> Collection[str] | None:
    # Imported here: models need settings, and an ``asgi.py`` imports this module before them.
    from switchyard.api.tokens import find_token

    try:
        token = find_token(plain)
        return None if token is None else token.rights
    finally:
        connections.close_all()  # of this thread, which no request uses


def _too_large(limit_bytes: int) -> Problem:
    return Problem(413, f"the body is larger than {limit_bytes} bytes; send less")


async def _answer(problem: Problem, scope: Scope, body: RequestBody, send: Send) -> None:
    """Send a refusal; close the connection after a body that does not end soon."""
    content = problem.encoded()
    headers = {"content-type": CONTENT_TYPE, "content-length": str(len(content)), **problem.headers}
    if not body.complete and str(scope.get("http_version", "")).startswith("1"):
        headers["connection"] = "close"
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": content, "more_body": not body.complete})
    if not body.complete:
        await body.discard()
        await send({"type": "http.response.body", "body": b""})
