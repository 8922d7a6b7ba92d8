"""Dead lists: messages that were given up, kept until a person decides. No worker consumes them."""

from __future__ import annotations

from switchyard.broker.keys.keys import Keys
from switchyard.broker.queue.dead_letter_json import decode, encode
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import DeadLetter, Page

ADD, REMOVE = (script(name, folder="") for name in ("dead_add", "dead_remove"))


class DeadLists:
    """Add, read and remove dead letters of any queue."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    def add(self, dead_letter: DeadLetter) -> bool:
        """Add a dead letter; where its id is there already, replace its content and return ``False``."""
        return bool(self._calls.call(ADD, self._both(dead_letter.queue), [dead_letter.id, encode(dead_letter)]))

    def remove(self, queue: str, message_id: str, *, as_read: DeadLetter | None = None) -> bool:
        """Remove a dead letter; ``False`` when it was not there.

        With ``as_read`` only if its content is still this one: a requeued message may have died again.
        """
        expected = encode(as_read) if as_read else ""
        return bool(self._calls.call(REMOVE, self._both(queue), [message_id, expected], repeatable=False))

    def get(self, queue: str, message_id: str) -> DeadLetter | None:
        """Return one dead letter, or ``None`` when there is none that can be read."""
        found = self._calls.command("HGET", self._keys.queue(queue).dead_letters, message_id)
        return None if found is None else decode(queue, found)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[DeadLetter]:
        """Return the dead letters that can be read, newest first; ``cursor`` counts from the newest."""
        ids = self._calls.command("LRANGE", self._keys.queue(queue).dead, -cursor - limit, -cursor - 1)
        if not ids:
            return Page([])
        found = self._calls.command("HMGET", self._keys.queue(queue).dead_letters, *ids[::-1])
        letters = [decode(queue, letter) for letter in found if letter is not None]
        return Page([letter for letter in letters if letter is not None], cursor + limit if len(ids) == limit else None)

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).dead))

    def _both(self, queue: str) -> list[str]:
        keys = self._keys.queue(queue)
        return [keys.dead, keys.dead_letters]
