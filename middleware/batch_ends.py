"""Ends of a batch's members that no script of the broker sees: a run that was cancelled, or a send that yielded."""

from __future__ import annotations

from typing import Any, Final

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.stores.batches import Batches, Outcome, batch_of
from switchyard.broker.topology import Yard
from switchyard.loggers import get_logger
from switchyard.middleware.outcomes import outcome_of
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)

# Runs that end by an acknowledgement as a success does.
NOT_DONE: Final[dict[str, Outcome]] = {"cancelled": "cancelled", "expired": "failed"}


class BatchEnds(Middleware):
    """Middleware that notes how a member of a batch ends, where its acknowledgement alone would count as done.

    A cancelled member counts as cancelled, one that is older than its ``max_age`` as failed. One that is not enqueued,
    because another job holds its unique key, counts as done: no other end of it comes.

    Listed before the middleware that decides the outcome.
    """

    def __init__(self, *, batches: Batches, yard: Yard) -> None:
        self._batches = batches
        self._yard = yard

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.message_id[14:15] == "8":
            self._note_run(message, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if message.message_id[14:15] == "8":
            self._note_run(message, None)

    def after_yield_to_holder(self, broker: Broker, message: Message[Any]) -> None:
        if batch_of(message.message_id):
            log.info("another message stands for a member of a batch", job_id=message.message_id)
            self._batches.note_end(self._queue_of(message), message.message_id, "done")

    def _note_run(self, message: MessageProxy, exception: BaseException | None) -> None:
        outcome = NOT_DONE.get(outcome_of(message, exception).kind)
        if outcome is None or not batch_of(message.message_id) or getattr(message, "moved", False):
            return
        token = str(message.lease.token, "ascii")
        what, member = "end of a batch's member", (self._queue_of(message), message.message_id)
        retry_until_available(message, what, self._batches.note_end, *member, outcome, token=token)

    def _queue_of(self, message: Message[Any] | MessageProxy) -> str:
        return self._yard.queue_of(message.queue_name).name
