"""``python -m demo.servers web FD`` and ``… sidecars SMTP_FD HTTP_FD``: servers on sockets that listen already.

The web runs Django; the sidecars, a mail sink and the webhook receiver, share one process without it. Each branch
imports what it needs, so that the sidecars stay small.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from demo.state import StateFolder

GRACE_S = 3  # event streams stay open for as long as their readers like; without a limit they would block the stop


def serve_web(descriptor: int) -> None:
    """Serve the site until SIGTERM; requests in flight have ``GRACE_S`` seconds to complete."""
    from switchyard.serving.server import serve

    # No proxy stands in front of the demo's web, so forwarded headers are not trusted.
    listener = socket.socket(fileno=descriptor)
    serve("project.asgi:application", sockets=[listener], proxy_headers=False, timeout_graceful_shutdown=GRACE_S)


def serve_sidecars(smtp: socket.socket, http: socket.socket, state: StateFolder) -> None:
    """Serve mail sink and webhook receiver until SIGTERM, the receiver in its own thread."""
    from apps.webhooks.receiver import Receiver

    receiver = Receiver(listener=http, secrets_file=state.sample, log_file=state.deliveries)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook receiver")
    thread.start()
    try:
        asyncio.run(_serve_smtp(smtp, state.mailbox))
    finally:
        receiver.stop()
        thread.join()


async def _serve_smtp(listener: socket.socket, folder: Path) -> None:
    from aiosmtpd.smtp import SMTP

    from apps.mail.sink import MAX_MAIL_BYTES, Mailbox

    mailbox = Mailbox(folder)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def connection() -> SMTP:
        # Without a hostname aiosmtpd asks the resolver for one on each connection.
        return SMTP(mailbox, loop=loop, hostname="localhost", ident="Switchyard", data_size_limit=MAX_MAIL_BYTES)

    server = await loop.create_server(connection, sock=listener)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    descriptors = [int(argument) for argument in sys.argv[2:]]
    if sys.argv[1] == "web":
        serve_web(*descriptors)
    else:
        smtp_listener, http_listener = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        serve_sidecars(smtp_listener, http_listener, StateFolder(Path(os.environ["SWITCHYARD_STATE_DIR"])))
