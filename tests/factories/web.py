"""The project's web in this process, on a real socket."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

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
