"""Mover of messages whose long delay is over: from the Redis server into their queues, by one process at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from dramatiq.message import Message

from broker.errors import BrokerError
from broker.keys.keys import Keys
from broker.queue import codec
from broker.queue.depth_limits import limits_lifted
from broker.rabbit.long_delays import LongDelays
from broker.redis.calls import RedisCalls
from broker.stores.locks import Lock

POLL_S: Final = 0.5
LEASE_MS: Final = 10_000
# A process that is not the leader, or that a server refused, asks again after this.
AGAIN_S: Final = 2.0

logger = logging.getLogger("switchyard.broker")


class Mover:
    """A thread in each worker process; the holder of a lock moves what is due, every 0.5 s.

    A message is enqueued first and then removed: a crash between enqueues it twice, and loses none.

    Args:
        lanes: Returns the lanes of the yard.
        enqueue: Enqueues a message without delay.
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
        self._lock = Lock(calls, keys, "long-delays", lease_ms=LEASE_MS)
        self._lanes, self._enqueue = lanes, enqueue
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread in this process."""
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

        Raises:
            BrokerError: one of the servers did not answer; the rest is moved the next time.
        """
        due = self.delays.due(self._lanes())
        for later in due:
            try:
                message = codec.decode(later.body, message_id=later.id, lane=later.lane)
            except codec.UnreadableMessage as error:
                logger.error(
                    "message %s of %s cannot be read after its delay, dropped: %s", later.id, later.lane, error
                )
            else:
                with limits_lifted():
                    self._enqueue(message)
            self.delays.remove(later)
        return len(due)

    def _run(self) -> None:
        away = False
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            try:
                leads = self._lock.acquire()
                if leads:
                    self.move()
                pause_s, away = POLL_S if leads else AGAIN_S, False
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
