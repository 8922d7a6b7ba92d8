"""Cancellation: a job that was asked to stop never starts; one that runs stops between two of its steps."""

from __future__ import annotations

from functools import partial

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware, SkipMessage

from broker.interface import Transport
from broker.records import JobRecords
from middleware.away import hold
from middleware.errors import Cancelled
from middleware.outcomes import Outcome, decide


class Cancellation(Middleware):
    """Skip messages that were asked to stop while a worker had them; others that are cancelled never come here."""

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a cancelled job. While the broker is away nobody knows, so none starts."""
        if hold(partial(self._transport.asked_to_stop, message), job_id=message.message_id, what="start"):
            decide(message, Outcome("cancelled"))
            raise SkipMessage("cancelled before it started")


def report(records: JobRecords, *, done: int, total: int, note: str = "") -> None:
    """Record how far the running job is, and stop it here when it was cancelled. Does nothing outside a worker.

    Raises:
        Cancelled: somebody asked for the job to stop.
    """
    message = CurrentMessage.get_current_message()
    if message is None:
        return
    if records.progress(message.message_id, {"done": done, "total": total, "note": note}):
        raise Cancelled(f"job {message.message_id} was cancelled after {done} of {total} steps")
