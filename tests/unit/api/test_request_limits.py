"""Requests over a limit are refused before Django sees them, and before their bodies are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from switchyard.api import request_limits
from switchyard.api.request_limits import RequestLimits

Message = dict[str, Any]
FORM = {"content-type": "Multipart/Form-Data; boundary=x"}
TOKEN = {"authorization": "Bearer good"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "FREE_BYTES", 50)
    monkeypatch.setattr(request_limits, "LINGER_S", 0.05)


async def scopes_of(plain: str) -> list[str] | None:
    return {"good": ["submit"], "other": ["submit"], "reader": ["read"]}.get(plain)


class Echo:
    """Reads all of a body, as Django does, and tells its size."""

    def __init__(self) -> None:
        self.asked = 0
        self.read_bytes = 0

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.asked += 1
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.read_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read_bytes).encode()})


def limited(application: Any, **options: Any) -> RequestLimits:
    small = {"body_bytes": 100, "large_body_bytes": 300, "timeout_s": 0.05, "large_timeout_s": 0.1, "wait_s": 0.05}
    return RequestLimits(application, large_routes=("/large",), check_token=scopes_of, **{**small, **options})


def call(
    headers: dict[str, str],
    chunks: list[bytes],
    *,
    path: str = "/api/v1/x",
    kind: str = "http",
    ends: bool = True,
    method: str = "POST",
) -> tuple[list[Message], Echo, int]:
    """Send a request through the limits; return what was answered, the application, and the chunks read before that.

    A body that does not end is one whose client stops sending.
    """
    echo = Echo()
    sent: list[Message] = []
    asked = asked_before = 0

    async def receive() -> Message:
        nonlocal asked
        if asked == len(chunks):
            await asyncio.Event().wait()
        chunk = chunks[asked]
        asked += 1
        return {"type": "http.request", "body": chunk, "more_body": asked < len(chunks) or not ends}

    async def send(message: Message) -> None:
        nonlocal asked_before
        asked_before = asked_before if sent else asked
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "http_version": "1.1",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(limited(echo)(scope, receive, send))  # type: ignore[arg-type]
    return sent, echo, asked_before


def refusal(sent: list[Message], status: int) -> dict[str, Any]:
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    assert not sent[-1].get("more_body", False)
    return json.loads(sent[1]["body"])


async def status_of(
    limit: RequestLimits,
    path: str,
    address: str = "::1",
    headers: dict[str, str] | None = None,
    until: asyncio.Event | None = None,
) -> int:
    """Send a request whose body comes when an event is set, and return the status of its answer."""
    statuses: list[int] = []

    async def receive() -> Message:
        if until is not None:
            await until.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": named, "client": (address, 1)}
    await limit(scope, receive, send)  # type: ignore[arg-type]
    return statuses[0]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def test_a_declared_length_up_to_the_limit_passes_and_one_over_it_is_refused_unread() -> None:
    passed, _, _ = call({"content-length": "100"}, [b"x" * 100])
    sent, _, asked = call({"content-length": "101"}, [b"x" * 101])

    assert passed[1]["body"] == b"100"
    assert "100 bytes" in refusal(sent, 413)["detail"]
    assert asked == 0


def test_a_chunked_body_is_refused_once_it_is_over() -> None:
    sent, echo, asked = call({}, [b"x" * 40] * 1000)

    refusal(sent, 413)
    assert asked == 3
    assert echo.read_bytes == 80


@pytest.mark.parametrize("length", ["10", "-1", "1e3", "²", "9" * 5_000])
def test_a_length_that_lies_does_not_help(length: str) -> None:
    sent, _, _ = call({"content-length": length}, [b"x" * 60, b"x" * 60])

    refusal(sent, 413)


@pytest.mark.parametrize(("chunks", "ends"), [([b"x" * 60] * 9, True), ([b"x" * 120], False)])
def test_the_rest_of_a_refused_body_is_discarded_for_a_while_and_the_connection_closed(
    chunks: list[bytes], ends: bool
) -> None:
    sent, _, _ = call({"content-length": "540"}, chunks, ends=ends)

    refusal(sent, 413)
    assert (b"connection", b"close") in sent[0]["headers"]
    assert len(sent) == 3


def test_a_large_form_is_accepted_on_its_route_with_a_token() -> None:
    passed, _, _ = call(FORM | TOKEN, [b"x" * 300], path="/large")
    refused, _, _ = call(FORM | TOKEN, [b"x" * 301], path="/large")

    assert passed[1]["body"] == b"300"
    refusal(refused, 413)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        (FORM, "/large", 401),
        (FORM | {"authorization": "Bearer bad"}, "/large", 401),
        (FORM | {"authorization": "Basic good"}, "/large", 401),
        (FORM | {"authorization": "Bearer reader"}, "/large", 403),
        (FORM | TOKEN, "/api/v1/x", 413),
        (TOKEN, "/large", 413),
    ],
)
def test_any_other_large_body_is_refused_unread(headers: dict[str, str], path: str, status: int) -> None:
    sent, _, asked = call(headers | {"content-length": "300"}, [b"x" * 300], path=path)

    refusal(sent, status)
    assert asked == 0


def test_a_chunked_form_without_a_token_is_refused_after_the_free_part() -> None:
    sent, echo, asked = call(FORM, [b"x" * 30] * 100, path="/large")

    refusal(sent, 401)
    assert asked == 2
    assert echo.read_bytes == 0


@pytest.mark.parametrize("chunks", [[], [b"x" * 10], [b"x" * 60]])
def test_a_body_that_stops_is_408(chunks: list[bytes]) -> None:
    sent, _, _ = call({}, chunks, ends=False)

    assert "0.05 s" in refusal(sent, 408)["detail"]


def test_a_large_body_has_more_time() -> None:
    sent, _, _ = call(FORM | TOKEN, [b"x" * 60], path="/large", ends=False)

    assert "0.1 s" in refusal(sent, 408)["detail"]


@pytest.mark.parametrize(
    ("one", "another", "path"),
    [
        (("", "::1"), ("", "::2"), "/"),
        (("invented", "::1"), ("invented", "::2"), "/"),
        (("good", "::1"), ("other", "::1"), "/"),
        (("good", ""), ("other", ""), "/large"),
    ],
    ids=["address", "unknown token", "token", "large"],
)
def test_one_caller_has_half_of_the_places(one: tuple[str, str], another: tuple[str, str], path: str) -> None:
    limit = limited(Echo(), requests=4, large_requests=4, unknown_requests=4, timeout_s=60, large_timeout_s=60)
    third = ("reader" if one[0] == "good" else "", "::3")

    async def run() -> list[int]:
        go_on = asyncio.Event()

        def start(client: tuple[str, str]) -> asyncio.Task[int]:
            headers = FORM | {"content-length": "200"} if path == "/large" else {"content-length": "99"}
            return asyncio.create_task(status_of(limit, path, client[1], headers | bearer(client[0]), go_on))

        reading = [start(one), start(one)]
        await asyncio.sleep(0)
        refused = [await start(one)]
        reading += [start(another), start(another)]
        await asyncio.sleep(0)
        refused += [await start(third)] if path != "/large" else []
        go_on.set()
        return [*refused, *await asyncio.gather(*reading), await start(one)]

    assert asyncio.run(run()) == [429, *([503] if path != "/large" else []), *[200] * 5]


def test_slow_bodies_without_a_token_hold_up_nobody_else() -> None:
    limit = limited(Echo(), requests=1, unknown_requests=1, timeout_s=60)
    body = {"content-length": "99"}

    async def run() -> list[int]:
        never = asyncio.Event()
        slow = asyncio.create_task(status_of(limit, "/healthz", "::1", body, never))
        await asyncio.sleep(0)
        statuses = [
            await status_of(limit, "/", "::2", {"content-length": "0"}),
            await status_of(limit, "/healthz", "::3", body, never),
        ]
        slow.cancel()
        return statuses

    assert asyncio.run(run()) == [200, 503]


def test_requests_wait_for_their_turn_and_probes_for_none() -> None:
    async def run() -> list[int]:
        go_on = asyncio.Event()

        async def slow(scope: Message, receive: Any, send: Any) -> None:
            if scope["path"] == "/slow":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await go_on.wait()  # the rest of the answer holds no place

        limit = limited(slow, requests=1)

        def start(path: str) -> asyncio.Task[int]:
            return asyncio.create_task(status_of(limit, path))

        begun = [start("/sent"), start("/slow")]
        await asyncio.sleep(0)
        refused = [await status_of(limit, "/same", "::1"), await status_of(limit, "/other", "::2")]
        begun += [start("/healthz"), start("/waiting")]
        given_up = start("/given-up")
        await asyncio.sleep(0)
        given_up.cancel()
        go_on.set()
        return [*refused, *await asyncio.gather(*begun), await start("/after")]

    assert asyncio.run(run()) == [429, 503, *[200] * 5]


CHARSETS = ["punycode", '"rot13"', "x", 'utf-8;charset="idna"']


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("content-type", "a;x*=foo''%41", 400, "RFC 2231"),
        *(("content-type", f"multipart/form-data; boundary=x; charset={each}", 400, "send UTF-8") for each in CHARSETS),
        ("cookie", 'a="' + "\\" * 31_000 + '"', 431, "cookie: has 31"),
        ("content-type", ";" * 31_000, 431, "content-type: has 31"),
    ],
    ids=["unreadable for Django", *CHARSETS, "a cookie of seconds", "a type of seconds"],
)
def test_a_header_that_cannot_be_read_soon_is_refused(name: str, value: str, status: int, said: str) -> None:
    sent, echo, _ = call({name: value}, [b""], path="/healthz", method="GET")

    assert said in refusal(sent, status)["detail"]
    assert echo.asked == 0


@pytest.mark.parametrize(("tokens", "expected"), [(["made-up-1", "made-up-2", "made-up-3"], 429), (["good"] * 3, 200)])
def test_made_up_tokens_have_no_share_of_their_own(tokens: list[str], expected: int) -> None:
    async def run() -> list[int]:
        go_on = asyncio.Event()

        async def application(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
            if scope["path"] == "/held":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        limit = limited(application, requests=4)
        held = [asyncio.create_task(status_of(limit, "/held", headers=bearer(f"bad-{number}"))) for number in (1, 2)]
        await asyncio.sleep(0)
        statuses = await asyncio.gather(*(status_of(limit, "/", headers=bearer(token)) for token in tokens))
        go_on.set()
        await asyncio.gather(*held)
        return statuses

    assert asyncio.run(run()) == [expected] * 3
