"""What was enqueued, as the server saw it: read from its own record of all commands (``MONITOR``).

Neither the code that enqueues nor that which works is asked, so a mistake in them cannot hide what it lost.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

from broker.redis.calls import script
from broker.redis.connections import connect

WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ENQUEUE = script("enqueue")
# Of the enqueue script: its keys, and four arguments before the first id.
FIRST_ID = 4
SELF = b'" lua] '


class Witness:
    """Reads the server's commands and keeps the ids that somebody tried to enqueue, and those that the server took.

    Args:
        url: Of a server that lets this user ``MONITOR``.

    Raises:
        redis.RedisError: it does not.
    """

    def __init__(self, url: str) -> None:
        self.attempted: set[str] = set()
        self.accepted: dict[str, str] = {}  # id -> key of the hash of bodies it was put into
        self._connection: Any = connect(url, profile="blocking").connection_pool.make_connection()
        self._connection.connect()
        self._connection.send_command("MONITOR")
        self._connection.read_response()

    @property
    def fd(self) -> int:
        """Readable when the server did something."""
        return int(self._connection._sock.fileno())

    def read(self) -> None:
        """Read what is there.

        Raises:
            redis.ConnectionError: the server is away, or was too fast: from here on nothing is known.
        """
        while self._connection.can_read(timeout=0):
            self.see(self._connection.read_response(disable_decoding=True))

    def see(self, line: bytes) -> None:
        """Take note of one command, as the server shows it."""
        origin, _, rest = line.partition(b"] ")
        if origin.endswith(b" lua"):
            if rest.startswith(b'"HSET" ') and b':bodies" ' in rest:
                words = _words(rest)
                for id_ in words[2::2]:
                    self.accepted.setdefault(id_, words[1])
        elif rest.startswith((b'"EVALSHA" "%s"' % ENQUEUE.sha.encode(), b'"EVAL" "#!lua\\n-- enqueue:')):
            words = _words(rest)
            arguments = words[3 + int(words[2]) :]
            self.attempted.update(arguments[FIRST_ID :: 3 if arguments[3] == "1" else 2])

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


def _words(command: bytes) -> list[str]:
    return [codecs.escape_decode(word)[0].decode("utf-8", "replace") for word in WORD.findall(command)]
