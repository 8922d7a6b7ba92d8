"""A real SMTP server on a loopback port that answers as a test says, and remembers every mail it accepted."""

import asyncio
import contextlib
import email
import email.policy
import threading
from collections.abc import Iterator
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP


class Recorder:
    """Accepts or refuses. ``replies`` holds one answer a recipient; ``None`` accepts; when empty all are accepted."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.replies: list[str | None] = []
        self.data_replies: list[str | None] = []
        self.hang_up_after_data = False
        self.port = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = self.replies.pop(0) if self.replies else None
        if reply is not None:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server, session, envelope):
        reply = self.data_replies.pop(0) if self.data_replies else None
        if reply is not None:
            return reply
        self.mails.append(email.message_from_bytes(envelope.content, _class=EmailMessage, policy=email.policy.default))
        self.recipients += envelope.rcpt_tos
        if self.hang_up_after_data:
            server.transport.abort()
        return "250 2.0.0 kept"


@contextlib.contextmanager
def smtp_server() -> Iterator[Recorder]:
    recorder = Recorder()
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        stopped = asyncio.Event()
        recorder.stop = lambda: loop.call_soon_threadsafe(stopped.set)
        server = await loop.create_server(lambda: SMTP(recorder, hostname="localhost", loop=loop), "127.0.0.1", 0)
        recorder.port = server.sockets[0].getsockname()[1]
        started.set()
        await stopped.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield recorder
    finally:
        recorder.stop()
        thread.join(30)
        loop.close()
