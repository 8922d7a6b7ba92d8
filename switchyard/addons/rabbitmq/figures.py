"""Figures of the queues on a RabbitMQ server, and their emptying."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from switchyard.addons.rabbitmq.connections import AWAY, PUBLISH_S, Publishers, unavailable
from switchyard.addons.rabbitmq.mover import LongDelays
from switchyard.addons.rabbitmq.queues import RabbitQueues
from switchyard.broker.shapes import LaneStats

# A purge declares the queues of a lane first, which takes a while each.
PURGE_S: Final = 30.0


class QueueFigures:
    """Counts of ready messages. The server tells a client neither ages, nor what workers hold."""

    def __init__(self, publishers: Publishers, queues: RabbitQueues, delays: LongDelays) -> None:
        self._publishers, self._queues, self._delays = publishers, queues, delays

    def count(self, names: Iterable[tuple[str, str]], *, patience_s: float = 0.0) -> list[int]:
        """Return how many messages are ready in queues of the server: pairs of a lane and a queue, declared if missing.

        A lost connection is made again for ``patience_s``.
        """
        names, give_up_s = list(names), time.monotonic() + patience_s
        while True:
            try:
                with self._publishers.channel() as channel:
                    return [self._queues.declare(channel, lane, name) for lane, name in names]
            except AWAY as error:
                if time.monotonic() >= give_up_s:
                    raise unavailable("a count", error, outcome="refused") from error
            time.sleep(0.05)

    def waiting(self, lane: str) -> int:
        """Return how many messages of a lane are ready, of all levels, as patiently as a publish."""
        return sum(self.count(((lane, name) for name in self._queues.of(lane)), patience_s=PUBLISH_S))

    def of(self, lane: str) -> LaneStats:
        """Return what is ready and delayed in a lane; what workers hold until it is due is not counted."""
        *ready, delayed = self.count((lane, name) for name in (*self._queues.of(lane), self._queues.delayed(lane)))
        [later] = self._delays.count([lane])
        return LaneStats(lane, sum(ready), delayed + later, 0, None)

    def rejected(self, lane: str) -> int:
        """Return how many messages of a lane the server rejected."""
        return self.count([(lane, self._queues.rejected(lane))])[0]

    def empty(self, lane: str) -> None:
        """Drop every message of a lane that no worker holds, what the server rejected included."""
        try:
            with self._publishers.channel(within_s=PURGE_S) as channel:
                for name in self._queues.every(lane):
                    self._queues.declare(channel, lane, name)
                    channel.queue_purge(name)
        except AWAY as error:
            raise unavailable("a purge", error) from error
        self._delays.clear(lane)
