"""``dramatiq-abort`` on the cancellation of jobs. A project that has the package lists it; nothing else imports it."""

import time
from typing import Any, Final

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage
from dramatiq_abort import Abort, Abortable
from dramatiq_abort.backends import StubBackend
from dramatiq_abort.middleware import AbortMode

from switchyard.broker.admin.scheduled import cancel, find_unrecorded
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import fields_of
from switchyard.broker.stores.job_record import options_of
from switchyard.loggers import get_logger
from switchyard.middleware.cancellation import STOP_BY_ITSELF_S, Cancellation
from switchyard.middleware.errors import CancelInterrupt

# The process of a task that goes on is terminated 3 s after the request.
LONGEST_WAIT_MS: Final = 2_500

log = get_logger(__name__)


class AbortInterrupt(CancelInterrupt, Abort):
    """Interrupt of the task of an aborted job, for code that expects either name."""


class CancelAbortable(Abortable):
    """``Abortable`` whose aborts are cancellations: recorded, never retried, and of tasks that hang as well.

    List it in ``DRAMATIQ_BROKER`` in place of ``dramatiq_abort.Abortable``; ``abort``, ``abort_requested``, ``Abort``
    and the option ``abortable`` stay as they are. ``abort_ttl`` are the milliseconds within which a worker reads the
    ``abort_timeout`` of an abort.
    """

    def __init__(self, *, abortable: bool = True, abort_ttl: int = 90_000) -> None:
        super().__init__(backend=StubBackend(), abortable=abortable, abort_ttl=abort_ttl)
        self._due_s: dict[str, float] = {}

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Have cancelled tasks interrupted by :class:`AbortInterrupt`, after their ``abort_timeout``."""
        for entry in broker.middleware:
            if isinstance(entry, Cancellation):
                entry.interrupts.cancellation = AbortInterrupt
                entry.grace_s = self._grace_s

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Do nothing: the broker does not start cancelled jobs."""

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._due_s.pop(message.message_id, None)

    after_skip_message = after_process_message

    def abort(
        self, message_id: str, abort_ttl: int | None = None, mode: AbortMode = AbortMode.ABORT, abort_timeout: int = 0
    ) -> None:
        """Cancel a job; one that is unknown or has ended is left alone.

        Args:
            mode: ``CANCEL`` leaves a job alone that runs.
            abort_timeout: Milliseconds that a running job has to end by itself, at most 2,500.
        """
        known = facilities()
        record = known.records.read(message_id)
        if record is not None:
            actor, options = record.actor, options_of(fields_of(record.body))
        elif (message := find_unrecorded(known, message_id)) is not None:
            actor, options = message.actor_name, message.options
        else:
            log.warning("not aborted, no such job", job_id=message_id)
            return
        runs = record is not None and record.state == "running"
        if not self._is_abortable(actor, options) or (runs and mode is AbortMode.CANCEL):
            log.info("not aborted", job_id=message_id, actor=actor, mode=mode.value)
            return
        if abort_timeout > 0:
            ttl_ms = self.abort_ttl if abort_ttl is None else abort_ttl
            known.records.calls.command("SET", known.records.keys.abort(message_id), abort_timeout, "PX", ttl_ms)
        cancel(known, message_id)

    def get_abort_request(self, message_id: str | None = None) -> float | None:
        """Return the milliseconds until a job that runs here is interrupted; ``None`` without an abort."""
        if message_id is None:
            current = CurrentMessage.get_current_message()
            message_id = "" if current is None else current.message_id
        due_s = self._due_s.get(message_id)
        return None if due_s is None else 1_000 * (due_s - time.monotonic())

    def _is_abortable(self, actor_name: str, options: dict[str, Any]) -> bool:
        actor = dramatiq.get_broker().actors.get(actor_name)
        values = options.get("abortable"), actor and actor.options.get("abortable"), self.abortable
        return bool(next((value for value in values if value is not None), False))

    def _grace_s(self, message: MessageProxy) -> float:
        records, wait_s = facilities().records, STOP_BY_ITSELF_S
        try:
            asked = records.calls.command("GET", records.keys.abort(message.message_id))
            if asked is not None:
                wait_s = min(int(asked), LONGEST_WAIT_MS) / 1_000
        except (BrokerError, ValueError):
            log.warning("abort_timeout cannot be read", job_id=message.message_id, exc_info=True)
        self._due_s[message.message_id] = time.monotonic() + wait_s
        return wait_s
