"""A stream of calls: while a server works on one, the next one is sent, to the same server or to another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import NoScriptError, OutOfMemoryError

from switchyard.broker.errors import BrokerFull, BrokerUnavailable
from switchyard.broker.redis.exchange import ANSWER_S, Word, left_s, sent_ahead
from switchyard.broker.redis.scripts import Script
from switchyard.broker.redis.server_errors import is_away, named

if TYPE_CHECKING:
    from switchyard.broker.redis.calls import RedisCalls


@dataclass(slots=True)
class _InFlight:
    """A call of a stream, and the connection that it was sent on and that its answer comes from, where there is one."""

    keys: Sequence[str]
    args: Sequence[Word]
    connection: Any = None
    sent: bool = False


class CallStream:
    """One stream.

    Args:
        budget_s: Seconds for each call.
    """

    def __init__(self, calls: RedisCalls, operation: Script, budget_s: float) -> None:
        self._calls, self._operation, self._budget_s = calls, operation, budget_s
        self._flying: deque[_InFlight] = deque()

    def run(self, calls: Iterable[tuple[Sequence[str], Sequence[Word]]]) -> Iterator[Any]:
        """Yield the answers in the order of the calls."""
        flying = self._flying
        try:
            for keys, args in calls:
                give_up_s = time.monotonic() + self._budget_s
                self._send_ahead(_InFlight(keys, args))
                if len(flying) > 1:
                    yield self._next_answer(give_up_s)
            while flying:
                yield self._next_answer(time.monotonic() + self._budget_s)
        finally:
            for connection in {id(one.connection): one.connection for one in flying if one.connection}.values():
                connection.disconnect()
                self._calls.release(connection)

    def _send_ahead(self, one: _InFlight) -> None:
        used = [other.connection for other in self._flying if other.connection is not None]
        self._flying.append(one)
        try:
            connection = self._calls.acquire_beside(used, one.keys)
        except redis.RedisError:
            return
        one.sent = sent_ahead(connection, self._operation, one.keys, one.args)
        if one.sent:
            one.connection = connection
        else:
            self._break(connection)
            self._calls.release(connection)

    def _next_answer(self, give_up_s: float) -> Any:
        """Return the answer to the oldest call; one that its server did not carry out is made anew, by itself."""
        one = self._flying[0]
        done_nothing = not one.sent
        if one.connection is not None:
            try:
                answer = one.connection.read_response(disable_decoding=True, timeout=min(left_s(give_up_s), ANSWER_S))
            except OutOfMemoryError as error:
                raise BrokerFull(self._operation.name, str(error)) from error
            except redis.RedisError as error:
                done_nothing = isinstance(error, (NoScriptError, *self._calls.done_nothing))
                if not done_nothing:
                    if not is_away(error):
                        raise named(self._operation.name, error) from error
                    broken = one.connection
                    self._break(broken)
                    self._calls.release(broken)
            else:
                self._end_oldest()
                return answer
        self._end_oldest()
        try:
            return self._calls.call(self._operation, one.keys, one.args, budget_s=left_s(give_up_s))
        except BrokerUnavailable as error:
            if not done_nothing and error.outcome == "refused":  # the answer to the first try was lost
                raise error.after_a_lost_answer() from error.__cause__
            raise

    def _break(self, connection: Any) -> None:
        """Close a connection: no answer comes from it any more."""
        connection.disconnect()
        for one in self._flying:
            if one.connection is connection:
                one.connection = None

    def _end_oldest(self) -> None:
        """Drop the oldest call; put its connection back unless the next call uses it."""
        one = self._flying.popleft()
        if one.connection is not None and all(other.connection is not one.connection for other in self._flying):
            self._calls.release(one.connection)
