"""Waiting for a lane's bell on a connection of its own: no polling, and the fetch is on its way already.

``BLPOP`` of the bell and the fetch that follows it are sent together. The server holds both until the bell rings, then
runs one after the other: the messages arrive with the ring, one round trip earlier than if they were asked for then.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import NoScriptError

from broker.redis.calls import ANSWER_S, RECONNECT_S, RedisCalls, Word
from broker.redis.scripts import Script
from broker.redis.server_errors import named

# After so long the server answers although the bell did not ring: a bell that was lost with its consumer costs no more,
# and a connection that is dead without a sign is noticed.
RINGS_AT_LEAST_EVERY_S: Final = 2
SILENT_S: Final = RINGS_AT_LEAST_EVERY_S + 3.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back.

    Args:
        rang: The bell rang; ``False`` when the server got tired of waiting.
        answer: Of the operation; ``None`` when there was none, or when the server forgot the script and it is for
            the caller to run it.
    """

    rang: bool
    answer: Any


class Wakeup:
    """One consumer's wait for one bell.

    :meth:`ask` and :meth:`hear` may raise ``BrokerUnavailable`` or ``BrokerRefused``; then nothing is pending any more.
    It sends on a connection of :class:`broker.redis.calls.RedisCalls` by itself, because no call there may block.
    """

    def __init__(self, calls: RedisCalls, bell: str) -> None:
        self._calls = calls
        self._bell = bell
        self._connection: Any = None
        self._then = False
        self._asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether an answer is to come."""
        return self._asked_at is not None

    def ask(self, then: Script | None = None, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> None:
        """Ask for the bell, and for an operation to be run right after it rang."""
        if self._connection is None:
            self._connection = self._calls.take()
        connection = self._connection
        try:
            connection.socket_connect_timeout = RECONNECT_S
            connection.connect()
            command = list(connection.pack_command("BLPOP", self._bell, RINGS_AT_LEAST_EVERY_S))
            if then is not None:
                command += connection.pack_command("EVALSHA", then.sha, len(keys), *keys, *args)
            connection.send_packed_command([b"".join(command)], check_health=False)
        except BaseException as error:
            self.disconnect()
            if isinstance(error, redis.RedisError):
                raise named("BLPOP", error) from error
            raise
        self._then = then is not None
        self._asked_at = time.monotonic()

    def hear(self, timeout_s: float) -> Heard | None:
        """Wait for the answer; return ``None`` when it did not come in time and is still to come."""
        connection, asked_at = self._connection, self._asked_at
        assert asked_at is not None  # noqa: S101  for the type checker: hear() follows ask()
        try:
            if not connection.can_read(timeout=timeout_s):
                if time.monotonic() - asked_at > SILENT_S:
                    raise redis.TimeoutError(f"no answer for {SILENT_S:g} s")
                return None
            rang = connection.read_response(disable_decoding=True, timeout=ANSWER_S) is not None
            answer = None
            if self._then:
                with contextlib.suppress(NoScriptError):
                    answer = connection.read_response(disable_decoding=True, timeout=ANSWER_S)
        except BaseException as error:
            self.disconnect()
            if isinstance(error, redis.RedisError):
                raise named("BLPOP", error) from error
            raise
        self._asked_at = None
        return Heard(rang, answer)

    def interrupt(self) -> None:
        """Make whoever hears in another thread see a closed connection."""
        connection = self._connection
        socket_ = getattr(connection, "_sock", None)
        if socket_ is not None:
            with contextlib.suppress(OSError):
                socket_.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """Give up what was asked. The server may have run it."""
        self._asked_at = None
        if self._connection is not None:
            self._connection.disconnect()
            self._calls.give(self._connection)
            self._connection = None
