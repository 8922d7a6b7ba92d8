"""Notes beside a RabbitMQ server about messages that it delivers again: crashes of their workers, and lost acks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import BrokerError
from broker.keys.keys import Keys
from broker.rabbit.publication import NO_NUMBER, Publication
from broker.redis.calls import RedisCalls

logger = logging.getLogger("switchyard.broker")

KEPT_S: Final = 72 * 3_600
NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class RedeliveryRecord:
    """Notes of a message.

    Args:
        crashes: Times it was running when its worker crashed.
        cause: What ended its last worker, once; it starts with ``limit`` for the hard limit.
        ended: Numbers of its publications that were finished although their acknowledgement did not arrive.
    """

    crashes: int = 0
    cause: str = ""
    ended: frozenset[bytes] = frozenset()


class Redeliveries:
    """Notes of messages that a worker held when it, or its connection, ended. They are kept for 72 hours.

    A server that gives a message to the next worker knows neither why the last one ended, nor that it had finished.
    """

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    def note_crash(self, message_id: str, cause: str, *, counts: bool = True) -> None:
        """Note that a message was running when its worker crashed."""
        key = self._keys.redelivered(message_id)
        self._calls.pipeline(
            [("HINCRBY", key, "crashes", int(counts)), ("HSET", key, "cause", cause), ("EXPIRE", key, KEPT_S)]
        )

    def note_ends(self, ended: Iterable[Publication]) -> None:
        """Note publications that were worked off, and are perhaps not acknowledged.

        Those without a number are left out: another one of the same id may follow.
        """
        commands: list[Sequence[Any]] = []
        for message_id, number in ended:
            if number == NO_NUMBER:
                continue
            key = self._keys.redelivered(message_id)
            commands += [("HSET", key, b"ended:" + number, 1), ("EXPIRE", key, KEPT_S)]
        if commands:
            self._calls.pipeline(commands)

    def note_ends_or_log(self, ended: Sequence[Publication]) -> None:
        """Note them; where the server does not answer, the messages may run again."""
        try:
            self.note_ends(ended)
        except BrokerError as error:
            ids = ", ".join(message_id for message_id, _ in ended[:NAMED])
            logger.warning("%d jobs have ended and may run again, it was not noted: %s: %s", len(ended), error, ids)

    def read(self, message_ids: Sequence[str]) -> list[RedeliveryRecord]:
        """Return the notes of messages, and forget the causes: each counts for one delivery."""
        keys = [self._keys.redelivered(id_) for id_ in message_ids]
        answers = self._calls.pipeline([("HGETALL", key) for key in keys])
        found = [_parsed(answer) for answer in answers]
        if causes := [key for key, noted in zip(keys, found, strict=True) if noted.cause]:
            self._calls.pipeline([("HDEL", key, "cause") for key in causes])
        return found


def _parsed(answer: Sequence[bytes]) -> RedeliveryRecord:
    fields = dict(zip(answer[::2], answer[1::2], strict=True))
    ended = frozenset(name.removeprefix(b"ended:") for name in fields if name.startswith(b"ended:"))
    return RedeliveryRecord(int(fields.get(b"crashes", 0)), str(fields.get(b"cause", b""), "utf-8", "replace"), ended)
