"""Queues on a RabbitMQ server: the names of each lane's queues, how they are declared, and how they are consumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dramatiq.common import dq_name, q_name
from pika.exceptions import ConsumerCancelled
from pika.spec import Basic

from switchyard.broker.queue.operations import HIGH, LOW, NORMAL

QueueType = Literal["quorum", "classic"]

LEVELS: Final = {HIGH: ".high", NORMAL: "", LOW: ".low"}
# Deliveries have stopped when none came for so long; they are stopped after the longer time in any case.
STILL_S: Final = 0.1
STOP_S: Final = 1.0
# Server's error for a user without the right to a queue or an exchange.
ACCESS_REFUSED: Final = 403
# Server's error for a queue that exists with other arguments.
PRECONDITION_FAILED: Final = 406


@dataclass(frozen=True, slots=True)
class RabbitQueues:
    """Names, which begin with ``prefix``, and arguments of the queues of a yard.

    Each level of a lane has a queue: quorum queues have no priorities. What is due later waits in ``.DQ``, and what the
    server rejects, for example after too many returns, in ``.XQ``. A ``quorum`` queue is replicated to the nodes of a
    cluster; ``classic`` keeps one copy.
    """

    prefix: str
    kind: QueueType = "quorum"

    def of(self, lane: str) -> Iterator[str]:
        """Yield the queues that a consumer of a lane reads; of ``work.DQ`` the queue of delayed messages alone."""
        for level in (NORMAL,) if lane != q_name(lane) else LEVELS:
            yield self.name(lane, level)

    def name(self, lane: str, level: int = NORMAL) -> str:
        return f"{self.prefix}.{lane}{LEVELS[level]}"

    def delayed(self, lane: str) -> str:
        return self.name(dq_name(lane))

    def rejected(self, lane: str) -> str:
        """Return the name of the queue of what the server rejects from a lane."""
        return f"{self.prefix}.{q_name(lane)}.XQ"

    def declare(self, channel: Any, lane: str, name: str) -> int:
        """Declare a queue of a lane, with the one for rejected messages; return how many messages are ready in it."""
        rejected = self.rejected(lane)
        answer = channel.queue_declare(queue=rejected, durable=True, arguments={"x-queue-type": self.kind})
        if name == rejected:
            return int(answer.method.message_count)
        answer = channel.queue_declare(queue=name, durable=True, arguments=self._arguments(rejected))
        return int(answer.method.message_count)

    def every(self, lane: str) -> list[str]:
        return [*self.of(lane), self.delayed(lane), self.rejected(lane)]

    def dead_lettering(self, rejected: str) -> dict[str, Any]:
        """Return arguments that have the server put what it rejects into a queue; they need rights of their own."""
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": rejected}

    def _arguments(self, rejected: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-queue-type": self.kind, **self.dead_lettering(rejected)}
        if self.kind == "quorum":
            # Without it a message is dropped when the queue of rejected ones cannot take it.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return arguments


class QueueConsumers:
    """Deliveries from queues to a channel; they can be stopped, and started again.

    ``held`` returns how many deliveries are not acknowledged; ``prefetch`` is for each queue. ``ended`` says why
    nothing is delivered any more although the connection lives: the server closed the channel, or a queue was deleted.
    """

    def __init__(
        self,
        connection: Any,
        channel: Any,
        names: Sequence[str],
        receive: Callable[..., None],
        *,
        held: Callable[[], int],
        prefetch: int,
    ) -> None:
        self._connection, self._channel, self._names, self._receive = connection, channel, names, receive
        self._held, self._prefetch = held, prefetch
        self._tags: list[str] = []
        self.active = False
        self.ended: Exception | None = None
        channel.add_on_cancel_callback(lambda _: self._end(ConsumerCancelled("a queue was deleted")))
        channel._impl.add_on_close_callback(lambda _, reason: self._end(reason))

    def _end(self, reason: Exception) -> None:
        self.ended = self.ended or reason

    def start(self) -> None:
        if not self.active:
            for tag in self._tags:
                self._channel.basic_cancel(tag)
            self._channel.basic_qos(prefetch_count=self._prefetch)
            self._tags = [self._channel.basic_consume(name, self._receive) for name in self._names]
            self.active = True

    def stop(self) -> None:
        """Cancel the consumers after draining deliveries in flight, so that each can be recorded as unstarted.

        The server drops what is between its queue and the channel at a cancellation, and pika rejects what comes after
        its own. So this waits until nothing more comes: acknowledgements that were sent are answered with deliveries,
        and none is sent meanwhile. pika cancels before the next start.
        """
        if not self.active or not self._connection.is_open:  # what a closed one held is noted by the consumer
            return
        give_up_s, held = time.monotonic() + STOP_S, -1
        while held != self._held() and time.monotonic() < give_up_s:
            held, until_s = self._held(), time.monotonic() + STILL_S
            while (left_s := until_s - time.monotonic()) > 0:
                self._connection.process_data_events(time_limit=left_s)
        for tag in self._tags:
            self._channel._impl._send_method(Basic.Cancel(consumer_tag=tag, nowait=True))
        self._channel.basic_qos(prefetch_count=self._prefetch)
        self._connection.process_data_events(time_limit=0)
        self.active = False
