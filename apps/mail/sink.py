"""Mail server for development: accepts every mail and stores it as a readable file.

Run it as ``python -m apps.mail.sink --port 0 --dir DIR`` (needs no Django, about 20 MB). Mails appear in ``DIR/new`` as
``.eml`` files; a file is complete when it appears.
"""

import argparse
import asyncio
import itertools
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_MAIL_BYTES = 10 * 1024 * 1024


class Mailbox:
    """Store of received mails, organised as a maildir: written in ``tmp``, then moved to ``new``."""

    def __init__(self, folder: Path) -> None:
        self.tmp = folder / "tmp"
        self.new = folder / "new"
        self._numbers = itertools.count()
        for path in (self.tmp, self.new):
            path.mkdir(parents=True, exist_ok=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Store one mail, on disk before it is acknowledged."""
        content = envelope.content or b""
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        try:
            await asyncio.to_thread(self.keep, raw, envelope.rcpt_tos)
        except OSError as failure:
            return f"452 4.3.1 not stored: {failure.strerror}"
        return "250 2.0.0 kept"

    def keep(self, raw: bytes, recipients: list[str]) -> Path:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}.eml"
        head = "".join(f"X-Envelope-To: {address}\r\n" for address in recipients).encode("utf-8")
        with (self.tmp / name).open("wb") as file:
            file.write(head + raw)
            file.flush()
            os.fsync(file.fileno())
        return (self.tmp / name).rename(self.new / name)


async def serve(mailbox: Mailbox, **where: Any) -> None:
    """Fill a mailbox until SIGTERM or SIGINT; print ``ready: 127.0.0.1:PORT`` once up.

    Args:
        where: ``host`` and ``port``, 0 for any free one; or ``sock``, which listens.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # aiosmtpd logs every line of every session, addresses included.
    logging.getLogger("mail.log").setLevel(logging.WARNING)

    def connection() -> SMTP:
        # Without a hostname aiosmtpd asks the resolver for one on each connection.
        return SMTP(mailbox, hostname="localhost", ident="Switchyard", data_size_limit=MAX_MAIL_BYTES, loop=loop)

    server = await loop.create_server(connection, **where)
    print(f"ready: 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - the command's answer
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Accept every mail and store it as a file.")
    arguments.add_argument("--port", type=int, default=8025, help="loopback port, 0 for any free one; default 8025")
    arguments.add_argument("--dir", type=Path, required=True, help="folder of the mailbox; created when missing")
    chosen = arguments.parse_args()
    asyncio.run(serve(Mailbox(chosen.dir), host="127.0.0.1", port=chosen.port))
