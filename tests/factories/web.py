"""The project's web in this process, on a real socket, and downloads from its asynchronous handler."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from asgiref.sync import async_to_sync
from django.test import AsyncClient

from switchyard.serving.server import config
from tests.waiting import wait_for


@contextlib.contextmanager
def serving(application: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port of the loopback; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config(application, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started, what="the web to start")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@async_to_sync
async def download(path: str, headers: dict[str, str] | None = None, cookies: Any = None) -> tuple[Any, bytes]:
    """Get a path from the asynchronous handler, with all of its content."""
    client = AsyncClient()
    if cookies is not None:
        client.cookies = cookies
    answer = await client.get(path.removeprefix("http://testserver"), headers=headers or {})
    if not answer.streaming:
        return answer, answer.content
    return answer, b"".join([part async for part in answer.streaming_content])
