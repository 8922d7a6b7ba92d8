import contextlib
from typing import Any

import pytest
from django.http import HttpResponse

from apps.images.models import Picture, Thumbnail
from tests.factories.callers import Caller
from tests.integration.outbound.conftest import allow as allow
from tests.integration.outbound.listener import Listener, listening, read_request

OWNER = "user:1"


@pytest.fixture
def serve(allow):
    """Serve one answer at a URL that may be fetched: ``serve(content, "image/png", path="a.png")``."""
    with contextlib.ExitStack() as stack:

        def start(content: bytes, content_type: str = "image/png", *, path: str = "picture", status: int = 200) -> str:
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nContent-Type: {content_type}\r\n\r\n"

            def act(listener: Listener, client: Any) -> None:
                read_request(listener, client)
                client.sendall(head.encode() + content)

            return allow(stack.enter_context(listening(act))) + path

        yield start


@pytest.fixture
def make_thumbnail(db):
    """Make a thumbnail's row for a URL."""

    def make(url: str, width: int = 100, height: int = 100) -> Thumbnail:
        picture = Picture.objects.create(owner_key=OWNER, source_url=url)
        return Thumbnail.objects.create(picture=picture, width=width, height=height, job_id="")

    return make


@pytest.fixture
def post(db):
    """Send to ``/api/v1/thumbnails``: JSON when given a dict as ``json``, a form when given fields."""
    caller = Caller("ada")

    def send(**request: Any) -> HttpResponse:
        if "json" in request:
            return caller.post("/thumbnails", request["json"])
        return caller.client.post("/api/v1/thumbnails", request, headers=caller.headers)

    send.get, send.headers = lambda path: caller.client.get(path, headers=caller.headers), caller.headers
    return send
