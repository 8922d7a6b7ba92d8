"""``python -m demo.web FD``: the web process, on a listening socket that the demo hands over."""

from __future__ import annotations

import socket
import sys

import uvicorn

GRACE_S = 3  # an open event stream would otherwise hold the process for as long as its reader likes


def serve(descriptor: int) -> None:
    """Serve until SIGTERM; requests in flight have ``GRACE_S`` seconds to end."""
    config = uvicorn.Config(
        "project.asgi:application",
        lifespan="off",
        log_config=None,
        access_log=False,
        # Nothing stands before the demo's web: what a request says of a proxy is not believed.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
