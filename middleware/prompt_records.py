"""Prompt records: with a broker of another library, job records are written at once, not in batches."""

from __future__ import annotations

from typing import Any

import structlog
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.middleware.wait_for_broker import retry_until_available

log = structlog.get_logger(__name__)


class PromptRecords(Middleware):
    """Writer of the steps that :mod:`switchyard.middleware.status` recorded: after enqueues, before acknowledgements.

    Listed before it: after-hooks run from last to first. Switchyard's own broker does the same for many messages at
    once, and needs no such middleware.
    """

    def __init__(self, *, barrier: AckBarrier) -> None:
        self._barrier = barrier

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the step of an enqueued job. An unavailable server does not fail the send, which has succeeded."""
        try:
            self._barrier.flush()
        except BrokerUnavailable as error:
            log.warning("record not written yet", job_id=message.message_id, error=str(error))

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Write the end of a job before its message is acknowledged."""
        retry_until_available(self._barrier.flush, job_id=message.message_id, what="end of a job")

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Write the end of a rejected job."""
        retry_until_available(self._barrier.flush, job_id=message.message_id, what="end of a job")
