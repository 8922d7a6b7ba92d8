"""Enqueued messages as the server saw them, read from its ``MONITOR`` stream of all commands.

Independent of the code that enqueues and of the workers, so a defect in them cannot hide a message that it lost.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script

WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ENQUEUE = script("enqueue")
# Arguments of the enqueue script before the first message id.
FIRST_ID = 4


class EnqueueMonitor:
    """Reader of the server's commands, which collects the ids of messages attempted and accepted.

    Args:
        url: Server that permits this user ``MONITOR``.

    Raises:
        redis.RedisError: the server does not permit it, or does not answer.
    """

    def __init__(self, url: str) -> None:
        self.attempted: set[str] = set()
        self.accepted: dict[str, str] = {}  # id -> key of the hash that got its body
        self._connection: Any = connect(url, profile="blocking").connection_pool.make_connection()
        self._connection.connect()
        self._connection.send_command("MONITOR")
        self._connection.read_response()

    @property
    def fd(self) -> int:
        """Descriptor that is readable when the server has executed commands."""
        return int(self._connection._sock.fileno())

    def read(self) -> None:
        """Process the commands received so far.

        Raises:
            redis.ConnectionError: the server does not answer, or closed a connection that read too slowly;
                later commands are missed.
        """
        while self._connection.can_read(timeout=0):
            self.process(self._connection.read_response(disable_decoding=True))

    def process(self, line: bytes) -> None:
        origin, _, rest = line.partition(b"] ")
        if origin.endswith(b" lua"):
            if rest.startswith(b'"HSET" ') and b':bodies" ' in rest:
                arguments = _arguments(rest)
                for id_ in arguments[2::2]:
                    self.accepted.setdefault(id_, arguments[1])
        elif rest.startswith((b'"EVALSHA" "%s"' % ENQUEUE.sha.encode(), b'"EVAL" "#!lua\\n-- enqueue:')):
            arguments = _arguments(rest)
            argv = arguments[3 + int(arguments[2]) :]
            self.attempted.update(argv[FIRST_ID :: 3 if argv[3] == "1" else 2])

    def close(self) -> None:
        self._connection.disconnect()


def _arguments(command: bytes) -> list[str]:
    return [codecs.escape_decode(word)[0].decode("utf-8", "replace") for word in WORD.findall(command)]
