"""Dramatiq's own Redis broker, made fit to run a yard: recovery tuned, errors translated, rubbish set aside.

It polls, and it recovers a killed worker's messages by its own heartbeats; docs/decisions/0001 says why that is the
start. Nothing above reaches around ``broker/interface.py``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any, cast

import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker as DramatiqRedisBroker
from dramatiq.brokers.redis import _RedisConsumer
from dramatiq.common import compute_backoff, dq_name, q_name
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.errors import BrokerUnavailable
from broker.interface import LaneStats
from broker.keys import Keys
from broker.quarantine import Quarantine
from broker.scripts import load

# A worker that was not heard of for so long is dead: its messages go back. Its consumers poll at least once a second.
HEARTBEAT_TIMEOUT_MS = 30_000

# Commands in a million that look for dead workers. With one poll a second and lane, half a minute at the 99.9th
# percentile, so that recovery takes at most 90 s.
MAINTENANCE_CHANCE = 250_000

# How often a consumer looks for messages that are in its name, but not in its hands.
LOOK_FOR_LOST_S = 15.0
GIVEN_BACK_AT_ONCE = 1_000


class UnreadableMessage(Exception):
    """Bytes in a queue that are no message for it."""


class RedisBroker(DramatiqRedisBroker):
    """Dramatiq's Redis broker on our keys and our clients.

    Args:
        client: Connected by :func:`broker.clients.connect`.
        heartbeat_timeout_ms: A worker silent for longer is taken for dead.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        middleware: list[Middleware] | None = None,
        heartbeat_timeout_ms: int = HEARTBEAT_TIMEOUT_MS,
    ) -> None:
        super().__init__(
            client=client,
            middleware=middleware,
            namespace=keys.dramatiq_namespace(),
            heartbeat_timeout=heartbeat_timeout_ms,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        self.keys = keys
        self.held: dict[str, set[str]] = {}
        self.quarantine_script = load(client, "quarantine")

    @property
    def consumer_class(self) -> type[_RedisConsumer]:
        """Consumer that sets rubbish aside."""
        return Consumer

    def renew_identity(self) -> None:
        """Become a worker of its own. Call it in a forked child: a shared identity hides the child's death."""
        self.broker_id = str(uuid.uuid4())
        self.held = {}

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message.

        Args:
            delay: Milliseconds, less than 7 days.

        Raises:
            BrokerUnavailable: the server did not answer; the message may be there.
        """
        try:
            return super().enqueue(message, delay=delay)
        except redis.RedisError as error:
            raise BrokerUnavailable(f"enqueue of {message.actor_name}", str(error)) from error

    def lane_stats(self, lane: str) -> LaneStats:
        """Return how a lane stands. ``running`` counts what workers hold, started or not."""
        live, delayed = f"{self.namespace}:{lane}", f"{self.namespace}:{dq_name(lane)}"
        with self.client.pipeline(transaction=False) as pipe:  # a full Redis 7 refuses every MULTI, even of reads
            pipe.llen(live)
            pipe.hlen(f"{live}.msgs")
            pipe.hlen(f"{delayed}.msgs")
            pipe.lindex(live, 0)
            waiting, bodies, scheduled, oldest = pipe.execute()
        age_ms = self._age_ms(live, oldest) if oldest is not None else None
        return LaneStats(lane, waiting, scheduled, max(bodies - waiting, 0), age_ms)

    def rejected(self, lane: str) -> int:
        """Return how many messages Dramatiq itself set aside (see :meth:`Consumer.nack`)."""
        return cast(int, self.client.zcard(f"{self.namespace}:{lane}.XQ"))

    def _age_ms(self, live: str, oldest: bytes) -> int | None:
        body = cast("bytes | None", self.client.hget(f"{live}.msgs", str(oldest, "utf-8")))
        if body is None:
            return None
        try:
            message = Message.decode(body)
            since = message.options.get("due_at") or message.options.get("enqueued_at") or message.message_timestamp
            return max(int(time.time() * 1000) - int(since), 0)
        except Exception:  # noqa: BLE001  whatever stands there is for the quarantine, not for a page of figures
            return None


class Consumer(_RedisConsumer):
    """Reads one lane. What cannot be read goes to the quarantine; what breaks on the way is a lost connection.

    The server notes what each worker took. What stands there in our name but is not in our hands would be stuck for as
    long as we live: the answer to a fetch was lost, or Dramatiq forgot what it had of a lane when it lost the
    connection (delayed messages, and what a consumer had not handed out). So it is looked for, and given back.
    """

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        if queue_name != q_name(queue_name):
            broker.held[queue_name] = set()  # only the consumer has delayed messages, and this one has none yet
        self._held = broker.held.setdefault(queue_name, set())
        self._taken = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"
        self._look_at_s = 0.0

    def __next__(self) -> MessageProxy | None:
        try:
            while True:
                while self.message_cache:
                    message = self._readable(self.message_cache.pop(0))
                    if message is not None:
                        self.misses = 0
                        self.queued_message_ids.add(message.message_id)
                        self._held.add(message.options["redis_message_id"])
                        return MessageProxy(message)
                self._give_back_lost()
                room = self.prefetch - self.outstanding_message_count
                if room > 0:
                    self.message_cache = self.broker.do_fetch(self.queue_name, room)
                if not self.message_cache:
                    self.misses, backoff_ms = compute_backoff(self.misses, max_backoff=self.timeout)
                    time.sleep(backoff_ms / 1000)
                    return None
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error

    def ack(self, message: MessageProxy) -> None:
        """Forget a processed message."""
        try:
            super().ack(message)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        self._held.discard(message.options["redis_message_id"])

    def nack(self, message: MessageProxy) -> None:
        """Forget a message that is in its dead list; leave any other to Dramatiq, which keeps it for 7 days."""
        if getattr(message, "buried", False):
            self.ack(message)
            return
        try:
            super().nack(message)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        self._held.discard(message.options["redis_message_id"])

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back that were not started."""
        given_back = list(messages)
        try:
            super().requeue(given_back)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        self._held.difference_update(message.options["redis_message_id"] for message in given_back)

    def close(self) -> None:
        """Give back what was not handed out."""
        self.message_cache = []
        self._look_at_s = 0.0
        try:
            self._give_back_lost()
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error

    def _give_back_lost(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_FOR_LOST_S
        client = self.broker.client
        if client.scard(self._taken) <= len(self._held):
            return
        taken = client.smembers(self._taken)  # as bytes: what somebody pushed by hand may be anything
        lost = [item for item in taken if item.decode(errors="replace") not in self._held]
        for start in range(0, len(lost), GIVEN_BACK_AT_ONCE):
            self.broker.do_requeue(self.queue_name, *lost[start : start + GIVEN_BACK_AT_ONCE])
        if lost:
            self.logger.warning("%d messages of %s were taken and not had; given back", len(lost), self.queue_name)

    def _readable(self, data: bytes | None) -> Message[Any] | None:
        if data is None:  # an id without a body: it was acknowledged by another
            return None
        try:
            return readable(data, self.queue_name)
        except UnreadableMessage as error:
            self._set_aside(data, str(error))
            return None

    def _set_aside(self, data: bytes, error: str) -> None:
        broker, lane = self.broker, self.queue_name
        canonical = lane.removesuffix(".DQ")
        queue = broker.switchyard.yard.family(canonical).name if hasattr(broker, "switchyard") else canonical
        keys = [
            f"{broker.namespace}:__acks__.{broker.broker_id}.{lane}",
            f"{broker.namespace}:{lane}.msgs",
            broker.keys.quarantine(queue),
        ]
        broker.quarantine_script(keys=keys, args=[data, Quarantine.entry(canonical, data, error)])
        self.logger.error("unreadable message of %d bytes in %s set aside: %s", len(data), lane, error)


def readable(data: bytes, lane: str) -> Message[Any]:
    """Return the message in ``data``.

    Raises:
        UnreadableMessage: it is none, or none that a worker of this lane could acknowledge.
    """
    try:
        message: Message[Any] = Message.decode(data)
    except Exception as error:
        raise UnreadableMessage(f"no message: {type(error).__name__}: {error}") from error
    shapes = (
        ("queue_name", str), ("actor_name", str), ("message_id", str),
        ("args", (list, tuple)), ("kwargs", dict), ("options", dict), ("message_timestamp", int),
    )  # fmt: skip
    for name, kind in shapes:
        if not isinstance(getattr(message, name), kind):
            raise UnreadableMessage(f"{name} is a {type(getattr(message, name)).__name__}")
    for name in ("attempts", "generation", "enqueued_at", "due_at"):
        if not isinstance(message.options.get(name, 0), int):
            raise UnreadableMessage(f"option {name} is a {type(message.options[name]).__name__}")
    if message.queue_name != lane:
        raise UnreadableMessage(f"queue_name is {message.queue_name!r}, but it lay in {lane!r}")
    if not isinstance(message.options.get("redis_message_id"), str):
        raise UnreadableMessage("options hold no redis_message_id")
    return message
