"""Commands for several nodes of a cluster, sent to all of them before answers are read; what failed is sent again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import AskError, BusyLoadingError, TryAgainError

from switchyard.addons.cluster.hash_slots import FOLLOWED_AT_ONCE, NOTHING_DONE, Address, Asking, is_half_moved, key_of
from switchyard.broker.redis.calls import ANSWER_S, Budget, Word, connect_within, left_s, read_answer
from switchyard.broker.redis.server_errors import is_away, named

if TYPE_CHECKING:
    from switchyard.addons.cluster.calls import ClusterCalls

# For the nodes that answer, while another one uses up the time.
LEAST_S = 0.05


class ClusterPipeline:
    """One pipeline: its answers by position, and what is still to be asked until its budget is spent."""

    def __init__(self, calls: ClusterCalls, commands: Sequence[Sequence[Word]], budget: Budget) -> None:
        self._calls, self._slots, self._commands = calls, calls.slots, commands
        self._keys = [key_of(words) for words in commands]
        self._answers: list[Any] = [None] * len(commands)
        self._asked: dict[int, Address] = {}
        self._errors: dict[int, redis.RedisError] = {}
        self._givers: dict[int, Address] = {}  # nodes that are handing a slot over, by position
        self._sent: set[int] = set()
        self._budget = budget

    def run(self) -> list[Any]:
        """Return the answers; what failed has its ``BrokerError`` in place. What cannot be sent is given up earlier."""
        left = list(range(len(self._commands)))
        rounds = 0
        while left := self._round(left):
            rounds += 1
            redirected = all(isinstance(self._errors[position], AskError) for position in left)
            wait_s = 0.0 if redirected and rounds <= FOLLOWED_AT_ONCE else self._budget.pause_s()
            if self._budget.ends_within(wait_s, reached=any(map(self._is_reached, left))):
                break
            self._budget.wait(wait_s)
        for position in left:
            error = self._errors[position]
            name = str(self._commands[position][0])
            self._answers[position] = self._calls.given_up(
                name, error, self._keys[position], self._givers.get(position), sent=position in self._sent
            )
        return self._answers

    def _is_reached(self, position: int) -> bool:
        """Return whether a node may have got a command, or said where it is to be sent."""
        return position in self._sent or position in self._givers or isinstance(self._errors[position], AskError)

    def _round(self, left: Sequence[int]) -> list[int]:
        """Send the unanswered commands; return those to send again."""
        groups: defaultdict[tuple[Address, bool], list[int]] = defaultdict(list)
        again: list[int] = []
        for position in left:
            asked = self._asked.pop(position, None)
            try:
                groups[asked or self._slots.master_of(self._keys[position]), asked is not None].append(position)
            except redis.RedisError as error:
                self._failed([position], error, None)
                again.append(position)
        opened: list[tuple[Address, Any, Any, list[int]]] = []
        try:
            for (address, asking), positions in groups.items():
                connection = self._calls.acquire_at(address)
                opened.append((address, connection, Asking(connection) if asking else connection, positions))
                if not self._send(opened[-1]):
                    again += positions
                    positions.clear()
            for each in opened:
                again += self._read(each)
        except BaseException:  # such as a time limit: answers may still be to come
            for _, connection, _, _ in opened:
                connection.disconnect()
            raise
        finally:
            for _, connection, _, _ in opened:
                self._calls.release(connection)
        return again

    def _send(self, each: tuple[Address, Any, Any, list[int]]) -> bool:
        address, connection, on, positions = each
        try:
            connect_within(connection, max(left_s(self._budget.give_up_s), LEAST_S))
            packed = on.pack_commands([self._commands[position] for position in positions])
            connection.send_packed_command(packed, check_health=False)
        except redis.RedisError as error:
            connection.disconnect()
            self._slots.doubt(address)
            self._failed(positions, error, address, asking=on is not connection)
            return False
        return True

    def _read(self, each: tuple[Address, Any, Any, list[int]]) -> list[int]:
        """Read the answers of one node, and return the positions of those that are to be asked for again."""
        address, connection, on, positions = each
        again: list[int] = []
        asking = on is not connection
        for at, position in enumerate(positions):
            timeout_s = min(max(left_s(self._budget.give_up_s), LEAST_S), ANSWER_S)
            try:
                self._answers[position] = read_answer(on, timeout_s)
            except AskError as error:
                self._failed([position], error, address, asking=asking)
                if (asked := self._slots.redirected(error, address)) is not None:
                    self._asked[position] = asked
                again.append(position)
            except (redis.ConnectionError, redis.TimeoutError, BusyLoadingError) as error:
                connection.disconnect()
                self._slots.doubt(address)
                rest = positions[at:]
                self._failed(rest, error, address, asking=asking)
                self._sent.update(rest)
                return again + rest
            except redis.ResponseError as error:
                if isinstance(error, NOTHING_DONE) or is_away(error):
                    self._failed([position], error, address, asking=asking)
                    again.append(position)
                    if not isinstance(error, TryAgainError):
                        self._slots.doubt(address)
                else:
                    self._answers[position] = named(str(self._commands[position][0]), error)
        return again

    def _failed(
        self, positions: Sequence[int], error: redis.RedisError, address: Address | None, *, asking: bool = False
    ) -> None:
        """Note an error. A failure of a node that is being given a slot leaves it half moved, as its giver said."""
        self._errors.update(dict.fromkeys(positions, error))
        for position in () if asking else positions:
            if address is not None and is_half_moved(error):
                self._givers[position] = address
            else:
                self._givers.pop(position, None)
