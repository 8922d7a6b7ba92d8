"""A stream of calls on a cluster: while a node works on one, the next one is sent, to the same node or to another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import NoScriptError, OutOfMemoryError

from switchyard.addons.cluster.hash_slots import NOTHING_DONE, HashSlots
from switchyard.broker.errors import BrokerFull, BrokerUnavailable
from switchyard.broker.redis.calls import ANSWER_S
from switchyard.broker.redis.exchange import Word, left_s, sent_ahead
from switchyard.broker.redis.scripts import Script
from switchyard.broker.redis.server_errors import is_away, named

if TYPE_CHECKING:
    from switchyard.addons.cluster.calls import ClusterCalls


@dataclass(slots=True)
class _InFlight:
    """A call of a stream, and the connection that it was sent on, if it was."""

    keys: Sequence[str]
    args: Sequence[Word]
    connection: Any
    sent: bool


class ClusterStream:
    """One stream.

    Args:
        budget_s: Seconds for each call.
    """

    def __init__(self, calls: ClusterCalls, slots: HashSlots, operation: Script, budget_s: float) -> None:
        self._calls, self._slots, self._operation, self._budget_s = calls, slots, operation, budget_s

    def run(self, calls: Iterable[tuple[Sequence[str], Sequence[Word]]]) -> Iterator[Any]:
        """Yield the answers in the order of the calls."""
        flying: deque[_InFlight] = deque()
        try:
            for keys, args in calls:
                flying.append(self._sent_ahead(keys, args, flying))
                if len(flying) > 1:
                    yield self._landed(flying)
            while flying:
                yield self._landed(flying)
        finally:
            for connection in {id(one.connection): one.connection for one in flying if one.connection}.values():
                connection.disconnect()
                self._calls.release(connection)

    def _sent_ahead(self, keys: Sequence[str], args: Sequence[Word], flying: Sequence[_InFlight]) -> _InFlight:
        try:
            address = self._slots.master_of(keys[0])
        except redis.RedisError:
            return _InFlight(keys, args, None, sent=False)
        used = (one.connection for one in flying if one.connection is not None)
        shared = next((one for one in used if (one.host, one.port) == address), None)
        connection = self._calls.acquire_at(address) if shared is None else shared
        if sent_ahead(connection, self._operation, keys, args):
            return _InFlight(keys, args, connection, sent=True)
        connection.disconnect()
        for one in flying:
            if one.connection is connection:
                one.connection = None
        self._calls.release(connection)
        return _InFlight(keys, args, None, sent=False)

    def _landed(self, flying: deque[_InFlight]) -> Any:
        """Return the answer to the oldest call of a stream; one that its node did not carry out is made anew."""
        one = flying[0]
        give_up_s = time.monotonic() + self._budget_s
        done_nothing = not one.sent
        if one.connection is not None:
            try:
                answer = one.connection.read_response(disable_decoding=True, timeout=min(self._budget_s, ANSWER_S))
            except OutOfMemoryError as error:
                raise BrokerFull(self._operation.name, str(error)) from error
            except redis.RedisError as error:
                done_nothing = isinstance(error, (*NOTHING_DONE, NoScriptError))
                if not done_nothing and not is_away(error):
                    raise named(self._operation.name, error) from error
                if not done_nothing:
                    one.connection.disconnect()
                    for other in list(flying)[1:]:
                        if other.connection is one.connection:
                            other.connection = None
            else:
                self._landed_on(flying)
                return answer
            self._landed_on(flying)
        else:
            flying.popleft()
        try:
            return self._calls.call(self._operation, one.keys, one.args, budget_s=left_s(give_up_s))
        except BrokerUnavailable as error:
            if not done_nothing and error.outcome == "refused":  # the answer to the first try was lost
                raise error.after_a_lost_answer() from error.__cause__
            raise

    def _landed_on(self, flying: deque[_InFlight]) -> None:
        """Take the oldest call off a stream; put its connection back unless the next call uses it."""
        one = flying.popleft()
        if all(other.connection is not one.connection for other in flying):
            self._calls.release(one.connection)
