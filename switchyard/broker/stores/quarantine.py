"""Quarantine: bytes found in a queue that are no message, kept apart so that they block nothing."""

from __future__ import annotations

import base64
import json
import uuid

from switchyard.broker.clock import now_ms
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import Page, Unreadable

KEPT_BYTES = 4096


class Quarantine:
    """Describe, list and count unreadable messages. On Redis, moving one in is the broker's own atomic operation."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    @staticmethod
    def entry(queue: str, raw: bytes, error: str, *, message_id: str | None = None) -> str:
        """Return the JSON kept for an unreadable message: the first 4 KiB of it, its size and what was wrong."""
        kept = {
            "id": message_id or uuid.uuid4().hex,
            "queue": queue,
            "raw": base64.b64encode(raw[:KEPT_BYTES]).decode(),
            "size_bytes": len(raw),
            "error": error,
            "seen_at": now_ms(),
        }
        return json.dumps(kept)

    def add(self, queue: str, message_id: str, entry: str, body: bytes) -> None:
        """Add an entry that :meth:`entry` returned, with the whole message; from another server, so maybe twice."""
        keys = self._keys.queue(queue)
        self._calls.pipeline([("LPUSH", keys.quarantine, entry), ("HSET", keys.quarantined_bodies, message_id, body)])

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[Unreadable]:
        key = self._keys.queue(queue).quarantine
        found = self._calls.command("LRANGE", key, cursor, cursor + limit - 1)
        entries = [json.loads(item) for item in found]
        items = [Unreadable(**{**entry, "raw": base64.b64decode(entry["raw"])}) for entry in entries]
        return Page(items, cursor + limit if len(found) == limit else None)

    def find(self, queue: str, entry_id: str) -> tuple[bytes, Unreadable, bytes | None] | None:
        """Return an entry as it is stored, parsed, and with the whole message, which old entries lack."""
        keys = self._keys.queue(queue)
        for as_read in self._calls.command("LRANGE", keys.quarantine, 0, -1):
            entry = json.loads(as_read)
            if entry["id"] == entry_id:
                whole = self._calls.command("HGET", keys.quarantined_bodies, entry_id)
                return as_read, Unreadable(**{**entry, "raw": base64.b64decode(entry["raw"])}), whole
        return None

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).quarantine))
