"""Bodies over the limit are refused before they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from switchyard.api import full_tokens
from switchyard.api.body_limit import BodyLimit, RequestLimits

Message = dict[str, Any]
LIMITS = RequestLimits(body_bytes=100, large_body_bytes=300, free_bytes=50, timeout_s=0.05, large_timeout_s=0.1)
FORM = {"content-type": "Multipart/Form-Data; boundary=x"}
TOKEN = {"authorization": "Bearer good"}


async def scopes_of(plain: str) -> list[str] | None:
    return {"good": ["submit"], "other": ["submit"], "reader": ["read"]}.get(plain)


class Echo:
    """Reads all of a body, as Django does, and tells its size."""

    def __init__(self) -> None:
        self.asked = 0
        self.read_bytes = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
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


def limited(application: Any, limits: RequestLimits = LIMITS) -> BodyLimit:
    return BodyLimit(application, large_routes=("/large",), limits=limits, check_token=scopes_of)


def call(
    headers: dict[str, str],
    chunks: list[bytes],
    *,
    path: str = "/api/v1/x",
    query: bytes = b"",
    kind: str = "http",
    ends: bool = True,
    method: str = "POST",
) -> tuple[list[Message], Echo, int]:
    """Send a request through the limit; return what was answered, the application, and how many chunks were asked.

    A body that does not end is one whose client stops sending.
    """
    echo = Echo()
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        if asked == len(chunks):
            await asyncio.Event().wait()
        chunk = chunks[asked]
        asked += 1
        return {"type": "http.request", "body": chunk, "more_body": asked < len(chunks) or not ends}

    async def send(message: Message) -> None:
        sent.append(message)

    if not {"content-length", "transfer-encoding"} & set(headers):
        headers = headers | {"transfer-encoding": "chunked"}
    scope = {
        "type": kind,
        "method": method,
        "http_version": "1.1",
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(limited(echo)(scope, receive, send))  # type: ignore[arg-type]
    return sent, echo, asked


def refusal(sent: list[Message], status: int) -> dict[str, Any]:
    """Return the problem document that was sent."""
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    document: dict[str, Any] = json.loads(sent[1]["body"])
    return document


def test_a_body_of_the_limit_passes() -> None:
    sent, _, _ = call({"content-length": "100"}, [b"x" * 100])

    assert sent[1]["body"] == b"100"


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    sent, _, asked = call({"content-length": "101"}, [b"x" * 101])

    assert "100 bytes" in refusal(sent, 413)["detail"]
    assert asked == 0


def test_a_chunked_body_is_refused_once_it_is_over() -> None:
    sent, echo, asked = call({}, [b"x" * 40] * 1000)

    refusal(sent, 413)
    assert asked == 3
    assert echo.read_bytes == 80


def test_a_length_that_lies_does_not_help() -> None:
    sent, _, _ = call({"content-length": "10"}, [b"x" * 60, b"x" * 60])

    refusal(sent, 413)


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
    ("headers", "path"), [({}, "/"), (TOKEN, "/"), (FORM | TOKEN, "/large")], ids=["anonymous", "known", "large"]
)
def test_only_so_many_bodies_are_read_at_once(headers: dict[str, str], path: str) -> None:
    limit = limited(
        Echo(),
        RequestLimits(body_bytes=100, large_body_bytes=300, free_bytes=1, anonymous=2, known=2, large=2, share=1.0),
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()] + [(b"content-length", b"99")],
    }
    if path == "/large":
        scope["headers"][-1] = (b"content-length", b"200")

    async def run() -> list[int]:
        go_on = asyncio.Event()
        statuses: list[int] = []

        async def receive() -> Message:
            await go_on.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        def start() -> asyncio.Task[None]:
            return asyncio.ensure_future(limit(dict(scope), receive, send))  # type: ignore[arg-type]

        reading = [start(), start()]
        await asyncio.sleep(0)
        await start()
        go_on.set()
        await asyncio.gather(*reading)
        await start()
        return statuses

    assert asyncio.run(run()) == [503, 200, 200, 200]


@pytest.mark.parametrize(
    ("one", "another", "path"),
    [
        (("", "::1"), ("", "::2"), "/"),
        (("good", "::1"), ("other", "::1"), "/"),
        (("good", ""), ("other", ""), "/large"),
    ],
    ids=["address", "token", "large"],
)
def test_one_client_holds_half_of_the_places(one: tuple[str, str], another: tuple[str, str], path: str) -> None:
    limits = RequestLimits(body_bytes=100, large_body_bytes=300, free_bytes=1, anonymous=4, known=4, large=4)
    limit = limited(Echo(), limits)

    async def run() -> list[tuple[str, int]]:
        go_on = asyncio.Event()
        statuses: list[tuple[str, int]] = []

        def start(name: str, client: tuple[str, str]) -> asyncio.Task[None]:
            async def receive() -> Message:
                await go_on.wait()
                return {"type": "http.request", "body": b"x", "more_body": False}

            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append((name, message["status"]))

            token, address = client
            headers = [(b"content-length", b"200" if path == "/large" else b"99")]
            headers += [(name.encode(), value.encode()) for name, value in FORM.items()] if path == "/large" else []
            headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
            scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": (address, 1)}
            return asyncio.ensure_future(limit(scope, receive, send))  # type: ignore[arg-type]

        reading = [start("one", one) for _ in range(2)]
        await asyncio.sleep(0)
        await start("one", one)
        reading += [start("another", another) for _ in range(2)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*reading)
        await start("one", one)
        return statuses

    assert asyncio.run(run()) == [("one", 503)] + [("one", 200)] * 2 + [("another", 200)] * 2 + [("one", 200)]


def test_only_so_many_requests_run_at_once_and_probes_are_answered() -> None:
    go_on: asyncio.Event

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def run() -> dict[str, int]:
        nonlocal go_on
        go_on = asyncio.Event()
        limit = limited(slow, RequestLimits(requests=1, wait_s=0.05))
        statuses: dict[str, int] = {}

        async def ask(path: str) -> None:
            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses[path] = message["status"]

            scope = {"type": "http", "http_version": "1.1", "path": path, "headers": []}
            await limit(scope, None, send)  # type: ignore[arg-type]

        running = asyncio.ensure_future(ask("/slow"))
        await asyncio.sleep(0)
        await ask("/other")
        await ask("/healthz")
        waiting = asyncio.ensure_future(ask("/waiting"))
        given_up = asyncio.ensure_future(ask("/given-up"))
        await asyncio.sleep(0)
        given_up.cancel()
        go_on.set()
        await asyncio.gather(running, waiting)
        await ask("/after")
        return statuses

    assert asyncio.run(run()) == {"/other": 503, "/healthz": 200, "/slow": 200, "/waiting": 200, "/after": 200}


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "1_000", "²", "9" * 30])
def test_a_length_that_is_no_number_is_400(length: str) -> None:
    sent, _, _ = call({"content-length": length}, [b""])

    refusal(sent, 400)


@pytest.mark.parametrize("content_type", ["a;x*=foo''%41", 'a; x="' + ";" * 31_000])
def test_a_content_type_that_django_cannot_read_is_400(content_type: str) -> None:
    sent, echo, _ = call({"content-type": content_type, "content-length": "0"}, [b""], path="/healthz", method="GET")

    refusal(sent, 400)
    assert echo.asked == 0


def test_cookies_that_take_seconds_to_read_are_431() -> None:
    cookie = 'a="' + "\\" * 31_000 + '"'
    sent, echo, _ = call({"cookie": cookie, "content-length": "0"}, [b""], path="/healthz", method="GET")

    refusal(sent, 431)
    assert echo.asked == 0


def test_a_query_that_is_not_encoded_is_400() -> None:
    sent, _, _ = call({}, [b""], query=b"\xff")

    refusal(sent, 400)


def test_a_query_of_too_many_parameters_is_400() -> None:
    most, _, _ = call({"content-length": "0"}, [b""], query=b"&".join([b"a=1"] * 1_000))
    sent, _, _ = call({"content-length": "0"}, [b""], query=b"&".join([b"a=1"] * 1_001))

    assert most[0]["status"] == 200
    assert refusal(sent, 400)["detail"] == "the query has 1,001 parameters, at most 1,000 are read; send fewer"


EVENTS = "/api/v1/jobs/0f8fad5b-d9cb-469f-a165-70867728950e/events"


@pytest.fixture
def full() -> Iterator[None]:
    """The token ``good`` has all its streams open."""
    full_tokens.mark_full("prefix", "good", 32)
    yield
    full_tokens.mark_free("prefix")


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        (TOKEN, EVENTS, 429),
        ({"authorization": "bearer  good "}, EVENTS, 429),
        ({"authorization": "Bearer other"}, EVENTS, 200),
        ({}, EVENTS, 200),
        (TOKEN, EVENTS.removesuffix("/events"), 200),
        (TOKEN, "/api/v1/webhooks/events", 200),
    ],
)
def test_a_further_stream_of_a_full_token_is_refused_before_django_sees_it(
    headers: dict[str, str], path: str, status: int
) -> None:
    sent, echo, _ = call(headers | {"content-length": "0"}, [b""], path=path, method="GET")

    assert sent[0]["status"] == status
    if status == 429:
        assert "32 event streams of this token or user are open" in refusal(sent, 429)["detail"]
        assert (b"retry-after", b"15") in sent[0]["headers"]
        assert echo.asked == 0


def test_a_token_that_closed_a_stream_may_open_one_again() -> None:
    full_tokens.mark_full("prefix", "good", 32)
    full_tokens.mark_free("prefix")

    sent, _, _ = call(TOKEN | {"content-length": "0"}, [b""], path=EVENTS, method="GET")

    assert sent[0]["status"] == 200


def test_only_so_many_streams_begin_at_once_beside_the_other_requests() -> None:
    async def run() -> tuple[int, list[str]]:
        begun, ended, may_end = 0, [], asyncio.Event()

        async def application(scope: Message, receive: Any, send: Any) -> None:
            nonlocal begun
            if scope["path"] == EVENTS:
                begun += 1
                await may_end.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            ended.append(scope["path"])

        async def one(path: str) -> None:
            scope = {"type": "http", "method": "GET", "http_version": "1.1", "path": path, "headers": []}
            await limit(scope, asyncio.Event().wait, ignored)  # type: ignore[arg-type]

        async def ignored(message: Any) -> None:
            pass

        limit = limited(application, RequestLimits(streams=2))
        streams = [asyncio.create_task(one(EVENTS)) for _ in range(5)]
        await asyncio.sleep(0)
        await one("/api/v1/queues")
        at_once = begun
        may_end.set()
        await asyncio.gather(*streams)
        return at_once, ended

    at_once, ended = asyncio.run(run())

    assert at_once == 2
    assert ended == ["/api/v1/queues", *[EVENTS] * 5]


def test_other_protocols_pass() -> None:
    sent, _, _ = call({"content-length": "1000"}, [b""], kind="lifespan")

    assert sent[0]["status"] == 200
