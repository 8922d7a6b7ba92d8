"""Blocking wait for a lane's wake-up, on a connection of its own: no polling, and the fetch is sent ahead.

``BLPOP`` of the wake-up list and the fetch that follows are sent together. The server holds both until another process
puts a token into the list, then runs one after the other: messages arrive one round trip earlier than if the fetch were
sent then.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.redis.calls import (
    ANSWER_S,
    RECONNECT_S,
    RedisCalls,
    Word,
    is_of_client,
    is_unknown_script,
    read_answer,
)
from switchyard.broker.redis.scripts import Script

POLL_CANCELLATIONS_S = 0.25


class CancellationPoll:
    """Marks and reports messages in flight whose cancellation was requested: one round trip a queue, 4 times a second.

    The same round trip reads which actors are paused: messages that were fetched before may not have started yet.

    The first poll is due a quarter of a second after a message went in flight where none was: one that was requested
    before is found at its start. A worker with few messages thus reads nothing while each begins.
    """

    def __init__(self, report: Callable[[HeldMessage], None]) -> None:
        self._report = report
        # Queue -> paused actor -> token, of queues with such an actor; see QueueOperations.read_acts.
        self.paused: dict[str, dict[str, int]] = {}
        self._due_s: float | None = None  # None while nothing is in flight
        self._reading = threading.Lock()

    def run(self, in_flight: Mapping[str, HeldMessage]) -> None:
        """Read, if it is due. While one thread reads, others return at once."""
        due_s, now_s = self._due_s, time.monotonic()
        if not in_flight:
            self._due_s = None
            self.paused.clear()  # what is fetched from now on is newer
            return
        if due_s is None:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            return
        if now_s < due_s or not self._reading.acquire(blocking=False):
            return
        try:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            self._read(list(in_flight.values()))
        finally:
            self._reading.release()

    def _read(self, in_flight: list[HeldMessage]) -> None:
        by_queue: dict[str, list[HeldMessage]] = {}
        for held in in_flight:
            by_queue.setdefault(held.family.keys.queue, []).append(held)
        for queue, messages in by_queue.items():
            requested, paused = messages[0].family.read_acts([held.message_id for held in messages])
            if paused:
                self.paused[queue] = paused
            else:
                self.paused.pop(queue, None)
            for held in messages:
                if held.message_id in requested and not held.cancel_requested:
                    held.cancel_requested = True
                    self._report(held)


# The server ends the wait after this time without a token: a token that was lost with its consumer delays no longer,
# and a dead connection is noticed.
LONGEST_BLOCK_S: Final = 2
SILENT_S: Final = LONGEST_BLOCK_S + 3.0


class Wakeup:
    """One consumer's wait for the wake-up of its lane.

    It sends on a connection of :class:`switchyard.broker.redis.calls.RedisCalls` by itself, because no call of that
    class may block. After a ``BrokerUnavailable`` or ``BrokerRefused`` nothing is pending any more.
    """

    def __init__(self, calls: RedisCalls, key: str) -> None:
        self._calls = calls
        self._key = key
        self._connection: Any = None
        self._has_operation = False
        self._requested_s: float | None = None

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come."""
        return self._requested_s is not None

    def request(self, then: Script | None = None, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> None:
        """Send the wait, and an operation that the server runs right after it."""
        try:
            if self._connection is None:
                self._connection = self._calls.acquire(self._key)
            connection = self._connection
            connection.socket_connect_timeout = RECONNECT_S
            connection.connect()
            command = list(connection.pack_command("BLPOP", self._key, LONGEST_BLOCK_S))
            if then is not None:
                command += connection.pack_command("EVALSHA", then.sha, len(keys), *keys, *args)
            connection.send_packed_command([b"".join(command)], check_health=False)
        except BaseException as error:
            self.disconnect()
            if is_of_client(error):
                raise self._calls.failed("BLPOP", error, self._key) from error
            raise
        self._has_operation = then is not None
        self._requested_s = time.monotonic()

    def wait(self, timeout_s: float) -> tuple[bool, Any] | None:
        """Return the answer, or ``None`` when it did not come in time and is still pending.

        First whether a token came: ``False`` when the server ended the wait. Then the answer of the operation that was
        sent ahead; ``None`` without one, and where the server did not know the script: the caller must run it.
        """
        connection, requested_s = self._connection, self._requested_s
        assert requested_s is not None  # noqa: S101  for the type checker: wait() follows request()
        try:
            if not connection.can_read(timeout=timeout_s):
                if time.monotonic() - requested_s > SILENT_S:
                    from redis import TimeoutError as NoAnswer

                    raise NoAnswer(f"no answer for {SILENT_S:g} s")
                return None
            notified = read_answer(connection, ANSWER_S) is not None
            fetch = None
            if self._has_operation:
                try:
                    fetch = read_answer(connection, ANSWER_S)
                except Exception as error:
                    if not is_unknown_script(error):
                        raise
        except BaseException as error:
            self.disconnect()
            if is_of_client(error):
                raise self._calls.failed("BLPOP", error, self._key) from error
            raise
        self._requested_s = None
        return notified, fetch

    def interrupt(self) -> None:
        """Shut the connection down, so that a wait in another thread ends with an error."""
        connection = self._connection
        socket_ = getattr(connection, "_sock", None)
        if socket_ is not None:
            with contextlib.suppress(OSError):
                # Not the shutdown of a TLS socket: it gives up TLS first, and the other thread reads what is encrypted.
                socket.socket.shutdown(socket_, socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """Abandon a pending wait. The server may have run the operation."""
        self._requested_s = None
        if self._connection is not None:
            self._connection.disconnect()
            self._calls.release(self._connection)
            self._connection = None
