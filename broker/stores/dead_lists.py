"""Dead lists: what was given up, kept until a person decides. No worker can consume one."""

from __future__ import annotations

from typing import cast

import redis

from broker.errors import BrokerUnavailable
from broker.keys.keys import Keys
from broker.queue.dead_letter_json import decode, encode
from broker.redis.scripts import load
from broker.shapes import DeadLetter, Page


class DeadLists:
    """Add, read and remove dead letters of any queue."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._add = load(client, "dead_add")
        self._remove = load(client, "dead_remove")

    def add(self, letter: DeadLetter) -> bool:
        """Add a letter; ``False`` when its id was there already, and its content is renewed.

        Raises:
            BrokerUnavailable: the server did not answer; the letter may be there.
        """
        try:
            return bool(self._add(keys=self._both(letter.queue), args=[letter.id, encode(letter)]))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"dead letter of {letter.actor}", str(error)) from error

    def remove(self, queue: str, letter_id: str, *, as_read: DeadLetter | None = None) -> bool:
        """Take a letter out; ``False`` when it was not there.

        Args:
            as_read: Remove this very letter only: a message that was requeued may have died again meanwhile.
        """
        expected = encode(as_read) if as_read else ""
        return bool(self._remove(keys=self._both(queue), args=[letter_id, expected]))

    def get(self, queue: str, letter_id: str) -> DeadLetter | None:
        """Return one letter, or ``None`` when there is none that can be read."""
        found = cast("bytes | None", self._client.hget(self._keys.dead_letters(queue), letter_id))
        return None if found is None else decode(queue, found)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[DeadLetter]:
        """Return the letters that can be read, newest first; ``cursor`` counts from the newest."""
        ids = cast("list[bytes]", self._client.lrange(self._keys.dead_list(queue), -cursor - limit, -cursor - 1))
        if not ids:
            return Page([])
        found = cast("list[bytes | None]", self._client.hmget(self._keys.dead_letters(queue), ids[::-1]))
        letters = [decode(queue, letter) for letter in found if letter is not None]
        return Page([letter for letter in letters if letter is not None], cursor + limit if len(ids) == limit else None)

    def count(self, queue: str) -> int:
        """Return how many letters a queue's dead list holds."""
        return int(self._client.llen(self._keys.dead_list(queue)))

    def _both(self, queue: str) -> list[str]:
        return [self._keys.dead_list(queue), self._keys.dead_letters(queue)]
