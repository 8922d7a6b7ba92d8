"""Bodies over the limit are refused before they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from apps.platform.api.body_limit import BodyLimit

Message = dict[str, Any]


class Echo:
    """Reads all of a body, as Django does, and tells its size."""

    def __init__(self) -> None:
        self.read_bytes = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.read_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read_bytes).encode()})


def call(
    headers: dict[str, str], chunks: list[bytes], *, query: bytes = b"", kind: str = "http"
) -> tuple[list[Message], Echo, int]:
    """Send a request through the limit; return what was answered, the application, and how many chunks were asked."""
    echo = Echo()
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        chunk = chunks[asked]
        asked += 1
        return {"type": "http.request", "body": chunk, "more_body": asked < len(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": "/api/v1/x",
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    limit = BodyLimit(echo, limit_bytes=100, multipart_limit_bytes=300)
    asyncio.run(limit(scope, receive, send))  # type: ignore[arg-type]
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


def test_multipart_bodies_have_their_own_limit() -> None:
    kind = {"content-type": "Multipart/Form-Data; boundary=x"}

    passed, _, _ = call(kind, [b"x" * 300])
    refused, _, _ = call(kind, [b"x" * 301])

    assert passed[1]["body"] == b"300"
    refusal(refused, 413)


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "1_000", "²", "9" * 30])
def test_a_length_that_is_no_number_is_400(length: str) -> None:
    sent, _, _ = call({"content-length": length}, [b""])

    refusal(sent, 400)


def test_a_query_that_is_not_encoded_is_400() -> None:
    sent, _, _ = call({}, [b""], query=b"\xff")

    refusal(sent, 400)


def test_other_protocols_pass() -> None:
    sent, _, _ = call({"content-length": "1000"}, [b""], kind="lifespan")

    assert sent[0]["status"] == 200
