"""Messages whose delay is longer than a worker may hold them: kept on the Redis server beside it, moved when due."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from dramatiq.message import Message

from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.broker.stores.limit_counts import Lock
from switchyard.broker.topology import lane_of_name

logger = logging.getLogger("switchyard.broker")

POLL_S: Final = 0.5
LEASE_MS: Final = 10_000
# One publish takes up to 9 s.
RENEW_S: Final = 1.0
# Behind others that are due meanwhile, so that refused messages fill no pass.
REFUSED_AGAIN_MS: Final = 60_000
# Refused messages that are logged once; of more, some are logged again.
NOTED: Final = 10_000
# A process that is not the leader, or that a server refused, asks again after this.
AGAIN_S: Final = 2.0
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
        """Store a message of a lane, due in ``delay_ms``. After ``BrokerUnavailable`` it may be there."""
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
        self._calls.command("ZADD", self._keys.later(later.lane), "XX", self._now_ms() + delay_ms, later.member)

    def remove(self, later: Later) -> None:
        """Remove a message that is in its queue now."""
        self._calls.command("ZREM", self._keys.later(later.lane), later.member)
        self._calls.command("HDEL", self._keys.later_bodies(later.lane), later.member)

    def count(self, lanes: Iterable[str]) -> list[int]:
        return [int(count) for count in self._calls.pipeline([("ZCARD", self._keys.later(lane)) for lane in lanes])]

    def clear(self, lane: str) -> None:
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


class Mover:
    """A thread in each worker process; the holder of a lock moves what is due, every 0.5 s.

    A message is enqueued first and then removed: a crash between enqueues it twice, and loses none.
    """

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        *,
        lanes: Callable[[], Sequence[str]],
        enqueue: Callable[[Message[Any]], object],
    ) -> None:
        self.delays = LongDelays(calls, keys)
        self._unreadable = Quarantine(calls, keys)
        self._refused: set[str] = set()  # ids of those that the log has
        self._away: set[str] = set()  # lanes whose queue did not answer last time
        self._lock = Lock(calls, keys, "long-delays", lease_ms=LEASE_MS)
        self._lanes, self._enqueue = lanes, enqueue
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switchyard-long-delays", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and let another process lead at once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        thread.join(AGAIN_S)

    def move(self) -> int:
        """Move what is due, and return how many messages that were.

        What is no message goes to the quarantine. A message that is refused stays, and is tried again a minute later.
        A queue that does not answer, for it is full or has no leader, keeps its own messages back and no others; it
        comes last in the next pass, because each answer that is missing takes seconds.

        Raises:
            BrokerError: Redis did not answer, or RabbitMQ for one queue; what is left is moved the next time.
        """
        renew_s, moved = time.monotonic() + RENEW_S, 0
        away: dict[str, BrokerUnavailable] = {}
        for later in sorted(self.delays.due(self._lanes()), key=lambda later: later.lane in self._away):
            if later.lane in away:
                continue
            if time.monotonic() >= renew_s:  # a busy server confirms after seconds
                if not self._lock.acquire():
                    break
                renew_s = time.monotonic() + RENEW_S
            try:
                moved += self._move(later)
            except BrokerUnavailable as error:
                away[later.lane] = error
        self._away = set(away)
        for first in away.values():
            raise first
        return moved

    def _move(self, later: Later) -> bool:
        try:
            message = codec.decode(later.body, message_id=later.id, lane=later.lane)
        except codec.UnreadableMessage as error:
            self._unreadable.set_aside(lane_of_name(later.lane)[0], later.lane, later.id, later.body, error)
            self.delays.remove(later)
            return False
        if not self.send(message, put_off=partial(self.delays.postpone, later)):
            return False
        self.delays.remove(later)
        return True

    def send(self, message: Message[Any], *, put_off: Callable[..., object]) -> bool:
        """Enqueue a message that is due; one that is refused is put off by ``delay_ms``, and logged once.

        Raises:
            BrokerUnavailable: a server did not answer; the message is where it was.
        """
        try:
            with limits_lifted():
                self._enqueue(message)
        except BrokerUnavailable:  # the others of its queue would wait for the same answer
            raise
        except Exception as error:  # of this message, by middleware or for its queue: others are moved
            put_off(delay_ms=REFUSED_AGAIN_MS)
            if message.message_id not in self._refused:
                if len(self._refused) >= NOTED:  # some were cancelled meanwhile
                    self._refused.clear()
                self._refused.add(message.message_id)
                text = (
                    "message %s of %s, actor %s, is refused after its delay: %s: %s; it is kept, and tried every %d s"
                )
                fact = type(error).__name__, error, REFUSED_AGAIN_MS // 1000
                whose = message.message_id, message.queue_name, message.actor_name
                logger.error(text, *whose, *fact, exc_info=True)
            return False
        self._refused.discard(message.message_id)
        return True

    def _run(self) -> None:
        away = False
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            try:
                leads = self._lock.acquire()
                goes_on = leads and self.move() >= AT_ONCE
                pause_s, away = 0.0 if goes_on else POLL_S if leads else AGAIN_S, False
            except BrokerError as error:
                if not away:
                    logger.warning("messages with long delays are moved later: %s", error)
                pause_s, away = AGAIN_S, True
            except Exception:  # the thread must go on: no other process takes over while this one holds the lock
                logger.exception("messages with long delays cannot be moved now")
                pause_s = AGAIN_S
        try:
            self._lock.release()
        except BrokerError as error:
            logger.info("another process moves messages with long delays in %d s: %s", LEASE_MS // 1000, error)
