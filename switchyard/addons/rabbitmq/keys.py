"""Names of the keys on the Redis server beside RabbitMQ that nothing else uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RabbitKeys:
    """Names of keys. Each docstring begins with the type of the key."""

    prefix: str

    def unique_claim(self, queue: str, key: str) -> str:
        """String: unique key of a message -> its id, and when it was sent (ms). Expires after nine days."""
        return f"{self.prefix}:{{{queue}}}:unique:{key}"

    def requeued(self, queue: str, message_id: str, died_at: int) -> str:
        """String: dead letter -> nonce of its requeue, and when it was sent (ms). Expires after ten minutes."""
        return f"{self.prefix}:{{{queue}}}:requeued:{message_id}:{died_at}"

    def later(self, lane: str) -> str:
        """Sorted set: messages of a lane with a long delay -> due time, ms since the epoch."""
        return f"{self.prefix}:{{{lane}}}:later"

    def later_bodies(self, lane: str) -> str:
        """Hash: each of those messages -> its id, a line break and its body."""
        return f"{self.prefix}:{{{lane}}}:later.bodies"

    def redelivered(self, job_id: str) -> str:
        """Hash: notes of a message that is delivered again. Expires after 72 hours.

        ``crashes`` its number, ``cause`` of the last one until it is read, and ``ended:<number>`` of each publication
        that was worked off although its acknowledgement may not have arrived.
        """
        return f"{self.prefix}:redelivered:{{{job_id}}}"

    def returned(self) -> str:
        """Sorted set: publications that went back to the server -> when, ms since the epoch.

        A member is the number of the publication. Whoever receives it next removes it: how its last delivery ended is
        known, and makes no suspect. Expires 72 hours after the last entry, with which older ones are removed.
        """
        return f"{self.prefix}:rabbit:returned"
