"""Completion callbacks of groups: sent once, although jobs run again after a crash."""

from __future__ import annotations

from functools import partial
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import GroupCallbacks

from switchyard.broker.stores.group_barriers import GroupBarriers
from switchyard.broker.topology import Yard
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.loggers import get_logger
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)


class DurableGroupCallbacks(GroupCallbacks):
    """Middleware that sends the callbacks of a group once all its jobs have succeeded.

    A job is counted by its id, after its record is written: the results of all jobs are there when the callbacks start.
    A job that fails, is cancelled or expires is not counted; a dead one is once it was requeued and succeeded.

    Each step may be repeated. A worker that dies before it acknowledges the last job leaves the callbacks to the next
    run of that job. They keep the ids that the group gave them: what was sent before is known to the broker.

    Listed before the middleware that records the result: after-hooks run from last to first. ``barrier_ttl`` are the
    milliseconds that a group is known after the last job that succeeded, a day by default.
    """

    def __init__(
        self, *, groups: GroupBarriers, barrier: AckBarrier, yard: Yard, barrier_ttl: int = 86_400_000
    ) -> None:
        super().__init__(groups, barrier_ttl=barrier_ttl)
        self._groups = groups
        self._barrier = barrier
        self._yard = yard

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is not None or "group_completion_callbacks" not in message.options:
            return
        group, callbacks = message.options.get("group_completion_uuid"), message.options["group_completion_callbacks"]
        if not group or not callbacks:
            return
        count = partial(self._count, str(group), message)
        state = retry_until_available(count, job_id=message.message_id, what="end of a group's job")
        if state == "unknown":
            log.error("group unknown, its callbacks are not sent", group=group, job_id=message.message_id)
        if state != "complete":
            return
        for fields in callbacks:
            self._send(broker, message, Message(**fields).copy())
        note_sent = partial(self._groups.note_sent, str(group), ttl_ms=self.barrier_ttl)
        retry_until_available(note_sent, job_id=message.message_id, what="note of a group's callbacks")

    def _count(self, group: str, message: MessageProxy) -> str:
        self._barrier.flush(with_starts=False, queue=self._yard.queue_of(message.queue_name).name)
        return self._groups.count(group, message.message_id, ttl_ms=self.barrier_ttl)

    def _send(self, broker: Broker, message: MessageProxy, callback: Message[Any]) -> None:
        if callback.queue_name not in broker.queues:  # a queue of newer code, whose workers consume it
            broker.declare_queue(callback.queue_name)
        send = partial(broker.enqueue, callback)
        retry_until_available(send, job_id=message.message_id, what="callback of a group")
