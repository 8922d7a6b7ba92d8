"""One command and its answer on a connection, each within a time, and the pace of reconnections.

redis-py is loaded by whoever connects: what only declares actors does without.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard

from switchyard.broker.redis.scripts import Script

if TYPE_CHECKING:
    import redis

Word = str | bytes | int

RECONNECT_S = 1.0
APART_S, LONGEST_S = 0.1, 0.4


class Pace:
    """Moments at which threads reconnect after a failure: 100 ms apart, or closer, so that none waits over 400 ms."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def turn_s(self) -> float:
        """Return how many seconds the caller waits before it reconnects."""
        now_s = time.monotonic()
        # Two threads may get the same moment, which does no harm; a lock would be inherited by forks.
        self._next_s = min(max(self._next_s + APART_S, now_s), now_s + LONGEST_S)
        return self._next_s - now_s + random.uniform(0, APART_S / 4)  # noqa: S311  no secret


PACE = Pace()


@cache
def is_timed() -> bool:
    """Return whether redis-py takes a time limit for one answer: before 8.0 it does not."""
    from redis.connection import Connection

    return "timeout" in inspect.signature(Connection.read_response).parameters


def left_s(give_up_s: float) -> float:
    """Return the seconds until a monotonic time, a millisecond at least."""
    return max(give_up_s - time.monotonic(), 0.001)


def connect_within(connection: Any, within_s: float) -> None:
    """Connect a connection that is not connected, in a second at most."""
    connection.socket_connect_timeout = min(within_s, RECONNECT_S)
    connection.socket_timeout = max(connection.socket_connect_timeout / 2, 0.1)  # of the login, and of the database
    connection.connect()


def sent_ahead(connection: Any, operation: Script, keys: Sequence[str], args: Sequence[Word]) -> bool:
    """Send an operation whose answer is read later; ``False`` where the server is away."""
    from switchyard.broker.redis.server_errors import AWAY

    try:
        connect_within(connection, RECONNECT_S)
        command = connection.pack_command("EVALSHA", operation.sha, len(keys), *keys, *args)
        connection.send_packed_command(command, check_health=False)
    except AWAY:
        return False
    return True


def evaluate(operation: Script, keys: Sequence[str], args: Sequence[Word], connection: Any, answer_s: float) -> Any:
    """Run an operation on a connection. A server that does not know it, new or flushed, is given its text."""
    try:
        return ask(connection, ("EVALSHA", operation.sha, len(keys), *keys, *args), answer_s)
    except Exception as error:
        if not is_unknown_script(error):
            raise
        return ask(connection, ("EVAL", operation.text, len(keys), *keys, *args), answer_s)


def is_of_client(error: BaseException) -> TypeGuard[redis.RedisError]:
    """Return whether an error is redis-py's."""
    from redis.exceptions import RedisError

    return isinstance(error, RedisError)


def is_unknown_script(error: BaseException | None) -> bool:
    """Return whether a server answered that it does not know a script by its hash."""
    from redis.exceptions import NoScriptError

    return isinstance(error, NoScriptError)


def ask(connection: Any, words: Sequence[Word], answer_s: float) -> Any:
    """Send a command and return its answer, waiting ``answer_s`` seconds for it at most."""
    connection.send_packed_command(connection.pack_command(*words), check_health=False)
    return read_answer(connection, answer_s)


def read_answer(connection: Any, within_s: float) -> Any:
    """Return the next answer. ``redis.TimeoutError`` when no byte of it comes within so many seconds."""
    if is_timed():
        return connection.read_response(disable_decoding=True, timeout=within_s)
    if not connection.can_read(timeout=within_s):
        from redis.exceptions import TimeoutError as NoAnswer

        connection.disconnect()
        raise NoAnswer("Timeout reading from socket")
    return connection.read_response(disable_decoding=True)
