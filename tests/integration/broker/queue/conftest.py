"""A queue family with an owner, and pauses of its actors."""

import json
import uuid
from typing import Any

import pytest
import redis

from switchyard.broker.clock import is_put_off
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause
from tests.waiting import wait_for

ME = "me/live"


class Family(QueueOperations):
    """A queue family with an owner, whose fetches are numbered."""

    requests = 0

    def send(self, *ids: str, actor: str = "fan_out", delay_ms: int = 0, **fields: Any) -> None:
        body = json.dumps({"actor": actor, "sent_at": 1, **fields}, separators=(",", ":")).encode()
        self.enqueue([Entry(id_, body) for id_ in ids], delay_ms=delay_ms)

    def next(self, count: int = 500, owner: str = ME) -> list[str]:
        self.requests += 1
        found = self.fetch(owner, count, request=self.requests)
        if found.state == "over":
            administration.resume_actor(self)
            return self.next(count, owner)
        return [str(grant.lease.id, "ascii") for grant in found.grants]

    def all_of(self, count: int, at_once: int = 500) -> list[str]:
        """Fetch until there are so many; return their ids in that order."""
        found: list[str] = []
        wait_for(lambda: found.extend(self.next(at_once)) or len(found) == count)  # type: ignore[func-returns-value]
        return found

    def due_times(self) -> dict[str, int]:
        pairs = self.calls.command("ZRANGE", self.keys.due("live"), 0, -1, "WITHSCORES")
        return {str(id_, "ascii"): int(float(score)) for id_, score in zip(pairs[::2], pairs[1::2], strict=True)}

    def put_off(self) -> list[str]:
        return [id_ for id_, due_at in self.due_times().items() if is_put_off(due_at)]


@pytest.fixture
def family(valkey: redis.Redis) -> Family:
    made = Family(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))
    made.join(ME)
    return made


def pause(family: Family, actor: str = "fan_out", **fields: Any) -> ActorPause:
    made = ActorPause(0, fields.pop("until", 0), 0, actor, **fields)
    administration.pause_actor(family, made)
    return made


def now_ms(family: Family) -> int:
    seconds, micros = family.calls.command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
