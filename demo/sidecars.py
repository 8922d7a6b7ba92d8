"""``python -m demo.sidecars SMTP_FD HTTP_FD``: mailbox and webhook receiver in one process without Django."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from aiosmtpd.smtp import SMTP

from apps.product.mail.sink import MAX_MAIL_BYTES, Mailbox
from apps.product.webhooks.receiver import Receiver
from demo.state import StateFolder


def serve(smtp: socket.socket, http: socket.socket, state: StateFolder) -> None:
    """Serve until SIGTERM, the receiver in a thread of its own."""
    receiver = Receiver(listener=http, secrets_file=state.sample, log_file=state.deliveries)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook receiver")
    thread.start()
    try:
        asyncio.run(_take_mail(smtp, Mailbox(state.mailbox)))
    finally:
        receiver.stop()
        thread.join()


async def _take_mail(listener: socket.socket, mailbox: Mailbox) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def connection() -> SMTP:
        # Without a hostname aiosmtpd asks the resolver for one, for each connection.
        return SMTP(mailbox, loop=loop, hostname="localhost", ident="Switchyard", data_size_limit=MAX_MAIL_BYTES)

    server = await loop.create_server(connection, sock=listener)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    smtp_listener, http_listener = (socket.socket(fileno=int(argument)) for argument in sys.argv[1:3])
    serve(smtp_listener, http_listener, StateFolder(Path(os.environ["SWITCHYARD_STATE_DIR"])))
