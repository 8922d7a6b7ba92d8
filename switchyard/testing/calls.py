"""Calls of a test that would go to the server: counters of rate limiters are kept in memory, others are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue import codec
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.scripts import Script
from switchyard.broker.stores.limit_counts import CHANGE


class MemoryCalls(RedisCalls):
    """Counters of :class:`switchyard.broker.stores.limit_counts.LimitCounts`, and the refusal of everything else.

    What is refused belongs to a real server: pages of the operations room, locks of processes, streams of events.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every counter."""
        self._counts: dict[str, tuple[int, int]] = {}

    def call(self, operation: Script, keys: Sequence[str], args: Sequence[Word] = (), **options: Any) -> Any:
        """Change a counter, as ``switchyard/broker/lua/limit_change.lua`` does.

        Raises:
            BrokerUnavailable: it is another operation.
        """
        if operation is not CHANGE:
            self._refuse(operation.name)
        amount, minimum, maximum, ttl_ms = (int(word) for word in args[:4])
        before = self._count(keys[0])
        value = (before or 0) + amount
        fits = minimum <= value <= maximum and not (before is not None and args[5] == "new")
        if len(keys) > 2:
            fits = fits and amount + sum(self._count(key) or 0 for key in keys[2:]) <= maximum
        if fits:
            self._counts[keys[0]] = value, now_ms() + ttl_ms
        return int(fits)

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        """Set an event of a barrier, or read whether it is set.

        Raises:
            BrokerUnavailable: it is another command.
        """
        match words:
            case ("EXISTS", str(key)):
                return int(self._count(key) is not None)
            case ("SET", str(key), int(value), "PX", int(ttl_ms)):
                self._counts[key] = value, now_ms() + ttl_ms
                return b"OK"
        return self._refuse(str(words[0]))

    def pipeline(self, commands: Sequence[Sequence[Word]], **options: Any) -> NoReturn:
        """Refuse."""
        self._refuse(str(commands[0][0]) if commands else "a pipeline")

    def stream(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse."""
        self._refuse("a stream")

    def acquire(self, key: str | bytes | None = None) -> NoReturn:
        """Refuse."""
        self._refuse("a connection")

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _count(self, key: str) -> int | None:
        value, expires_ms = self._counts.get(key, (0, 0))
        return value if expires_ms > now_ms() else None

    def _refuse(self, operation: str) -> NoReturn:
        cause = "the broker of this test is in memory"
        remedy = "test what needs a server with a real one"
        raise BrokerUnavailable(operation, cause, outcome="refused", remedy=remedy)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in memory, encoded as it would be on the server.

    Args:
        level: Priority: 1 high, 2 normal, 3 low.
        ready_ms: Time from which it may start, ms since the epoch.
        order: Number of its enqueueing.
    """

    id: str
    lane: str
    body: bytes
    level: int
    ready_ms: int
    order: int
    unique_key: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """Place among the messages that are ready: by priority, then by time, then by number."""
        return self.level, self.ready_ms, self.order

    def message(self) -> Message[Any]:
        """Return the message in the body."""
        return codec.decode(self.body, message_id=self.id, lane=self.lane)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was sent for the first time.

    Args:
        by_task: A task sent it.
        delay_ms: ``None`` where it was sent without a delay.
    """

    message: Message[Any]
    by_task: bool
    delay_ms: int | None
