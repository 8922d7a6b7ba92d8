"""Messages for RabbitMQ whose delay is longer than a worker may hold them: kept on the Redis server beside it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from switchyard.addons.rabbitmq.keys import RabbitKeys
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls

AT_ONCE: Final = 100


class Later(NamedTuple):
    """A stored message: its place, its id and its body."""

    lane: str
    member: bytes
    id: str
    body: bytes


class LongDelays:
    """Store, list and remove messages that are due later. The server's clock decides."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = RabbitKeys(keys.prefix)

    def add(self, lane: str, message_id: str, body: bytes, *, delay_ms: int) -> None:
        """Store a message of a lane, due in ``delay_ms``.

        Raises:
            BrokerUnavailable: the server did not answer; the message may be there.
        """
        member, due_ms = uuid.uuid4().hex, self._now_ms() + delay_ms
        stored = message_id.encode() + b"\n" + body
        # The body first: what is due has one.
        self._calls.command("HSET", self._keys.later_bodies(lane), member, stored)
        self._calls.command("ZADD", self._keys.later(lane), due_ms, member)

    def due(self, lanes: Sequence[str]) -> list[Later]:
        """Return messages that are due, at most 100 of each lane, the oldest first."""
        now_ms = self._now_ms()
        found = self._calls.pipeline(
            [("ZRANGEBYSCORE", self._keys.later(lane), "-inf", now_ms, "LIMIT", 0, AT_ONCE) for lane in lanes]
        )
        return [later for lane, members in zip(lanes, found, strict=True) for later in self._bodies(lane, members)]

    def postpone(self, later: Later, *, delay_ms: int) -> None:
        """Make a stored message due in ``delay_ms``."""
        self._calls.command("ZADD", self._keys.later(later.lane), "XX", self._now_ms() + delay_ms, later.member)

    def remove(self, later: Later) -> None:
        """Remove a message that is in its queue now."""
        self._calls.command("ZREM", self._keys.later(later.lane), later.member)
        self._calls.command("HDEL", self._keys.later_bodies(later.lane), later.member)

    def count(self, lanes: Iterable[str]) -> list[int]:
        """Return how many messages of each lane are due later."""
        return [int(count) for count in self._calls.pipeline([("ZCARD", self._keys.later(lane)) for lane in lanes])]

    def clear(self, lane: str) -> None:
        """Drop all messages of a lane."""
        self._calls.pipeline([("DEL", self._keys.later(lane)), ("DEL", self._keys.later_bodies(lane))])

    def _bodies(self, lane: str, members: Sequence[bytes]) -> list[Later]:
        if not members:
            return []
        found: list[Later] = []
        bodies = self._calls.command("HMGET", self._keys.later_bodies(lane), *members)
        for member, stored in zip(members, bodies, strict=True):
            if stored is None:  # another mover removed it meanwhile
                self._calls.command("ZREM", self._keys.later(lane), member)
                continue
            id_, _, body = stored.partition(b"\n")
            found.append(Later(lane, member, str(id_, "utf-8"), body))
        return found

    def _now_ms(self) -> int:
        seconds, microseconds = self._calls.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000
