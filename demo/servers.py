"""The servers of the demo that run on sockets which listen already: the web, and mail sink with webhook receiver."""

from __future__ import annotations

import asyncio
import socket
import threading

from demo.state import StateFolder

GRACE_S = 3  # event streams stay open for as long as their readers like; without a limit they would block the stop


def serve_web(listener: socket.socket) -> None:
    """Serve the site until SIGTERM; requests in flight have ``GRACE_S`` seconds to complete."""
    from switchyard.serving.server import serve

    # No proxy stands in front of the demo's web, so forwarded headers are not trusted.
    serve("project.asgi:application", sockets=[listener], proxy_headers=False, timeout_graceful_shutdown=GRACE_S)


def serve_sidecars(smtp: socket.socket, http: socket.socket, state: StateFolder) -> None:
    """Serve mail sink and webhook receiver until SIGTERM, the receiver in its own thread."""
    from apps.mail import sink
    from apps.webhooks.receiver import Receiver

    receiver = Receiver(listener=http, secrets_file=state.webhook_secrets, log_file=state.deliveries)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook receiver")
    thread.start()
    try:
        asyncio.run(sink.serve(sink.Mailbox(state.mailbox), sock=smtp))
    finally:
        receiver.stop()
        thread.join()
