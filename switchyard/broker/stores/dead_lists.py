"""Dead lists: messages that were given up, kept until a person decides; and the quarantine of other bytes."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Final

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue.codec import usable_id
from switchyard.broker.queue.dead_moves import decode_letter, encode_letter
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.own_keys import encode, read
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import DeadLetter, Page, Unreadable

logger = logging.getLogger("switchyard.broker")

ADD, REMOVE = (script(name, folder="") for name in ("dead_add", "dead_remove"))


class DeadLists:
    """Add, read and remove dead letters of any queue."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    def add(self, dead_letter: DeadLetter) -> bool:
        """Add a dead letter; where its id is there already, replace its content and return ``False``."""
        return bool(self._calls.call(ADD, self._both(dead_letter.queue), [dead_letter.id, encode_letter(dead_letter)]))

    def remove(self, queue: str, message_id: str, *, as_read: DeadLetter | None = None) -> bool:
        """Remove a dead letter; ``False`` when it was not there.

        With ``as_read`` only if its content is still this one: a requeued message may have died again.
        """
        expected = encode_letter(as_read) if as_read else ""
        return bool(self._calls.call(REMOVE, self._both(queue), [message_id, expected], repeatable=False))

    def get(self, queue: str, message_id: str) -> DeadLetter | None:
        """Return one dead letter, or ``None`` when there is none that can be read."""
        found = self._calls.command("HGET", self._keys.queue(queue).dead_letters, message_id)
        return None if found is None else decode_letter(self._keys.queue(queue).dead_letters, found)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[DeadLetter]:
        """Return the dead letters that can be read, newest first; ``cursor`` counts from the newest."""
        key = self._keys.queue(queue).dead_letters
        ids = self._calls.command("LRANGE", self._keys.queue(queue).dead, -cursor - limit, -cursor - 1)
        if not ids:
            return Page([])
        found = self._calls.command("HMGET", key, *ids[::-1])
        letters = [decode_letter(key, letter) for letter in found if letter is not None]
        return Page([letter for letter in letters if letter is not None], cursor + limit if len(ids) == limit else None)

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).dead))

    def _both(self, queue: str) -> list[str]:
        keys = self._keys.queue(queue)
        return [keys.dead, keys.dead_letters]


KEPT_BYTES = 4096
ENTRY: Final = msgspec.json.Decoder(Unreadable)  # bytes are base64 in it, as msgspec writes them


class Quarantine:
    """Describe, list and count unreadable messages. On Redis, moving one in is the broker's own atomic operation."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    @staticmethod
    def entry(queue: str, raw: bytes, error: str, *, message_id: str | None = None) -> str:
        """Return the JSON kept for an unreadable message: the first 4 KiB of it, its size and what was wrong."""
        kept = Unreadable(message_id or uuid.uuid4().hex, queue, raw[:KEPT_BYTES], len(raw), error, now_ms())
        return str(encode(kept), "utf-8")

    def set_aside(self, queue: str, lane: str, given_id: str, body: bytes, error: Exception) -> None:
        """Add a message from another server, maybe twice; one without a usable id gets another."""
        id_, keys = usable_id(given_id.encode()) or f"unreadable-{time.time_ns()}", self._keys.queue(queue)
        entry = self.entry(lane, body, str(error), message_id=id_)
        self._calls.pipeline([("LPUSH", keys.quarantine, entry), ("HSET", keys.quarantined_bodies, id_, body)])
        logger.error("unreadable message of %d bytes in %s set aside: %s", len(body), lane, error)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[Unreadable]:
        key = self._keys.queue(queue).quarantine
        [found] = self._calls.look([("LRANGE", key, cursor, cursor + limit - 1)])
        items = [entry for item in found if (entry := read(ENTRY, item, key)) is not None]
        return Page(items, cursor + limit if len(found) == limit else None)

    def find(self, queue: str, entry_id: str) -> tuple[bytes, Unreadable, bytes | None] | None:
        """Return an entry as it is stored, parsed, and with the whole message, which old entries lack."""
        keys = self._keys.queue(queue)
        for as_read in self._calls.command("LRANGE", keys.quarantine, 0, -1):
            entry = read(ENTRY, as_read, keys.quarantine)
            if entry is not None and entry.id == entry_id:
                return as_read, entry, self._calls.command("HGET", keys.quarantined_bodies, entry_id)
        return None

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).quarantine))
