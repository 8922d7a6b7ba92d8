"""The middleware with which a child fills in its row of the shared table."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from apps.platform.workers.table import NO_LIMIT, Row
from broker.topology import Yard
from middleware.outcomes import Outcome, decide

LOOK_FOR_LEASES_S = 0.05

logger = logging.getLogger("switchyard.workers")


class Slots(Middleware):
    """Write what a child takes, runs, ends and finishes into its row.

    Must be the first middleware of the broker: its after-hooks come last, when an attempt has really ended, skipped or
    not. A slot stays busy until its message is acknowledged: a child that dies before has not finished it.

    Args:
        lanes: Names of the lanes that the child serves.
        slots: Messages it runs at once.
    """

    def __init__(self, row: Row, yard: Yard, lanes: Sequence[str], slots: int) -> None:
        self._row = row
        self._lanes = {lane: at for at, lane in enumerate(lanes)}
        self._limits_ns = [yard.family(lane).hard_limit_ms * 1_000_000 for lane in lanes] or [NO_LIMIT]
        self._free = deque(range(slots))
        self._busy: dict[int, MessageProxy] = {}
        self._waiting = False

    @property
    def running(self) -> list[MessageProxy]:
        """Messages whose task has not ended, that of the youngest token last."""
        held = [message for message in list(self._busy.values()) if not message.slot_ended]
        return sorted(held, key=lambda message: _lease_of(message)[1])

    def is_asked(self, message_id: str) -> bool:
        """Whether the supervisor says that a running message was asked to stop."""
        return any(
            message.message_id == message_id and self._row.is_asked(slot) for slot, message in list(self._busy.items())
        )

    @contextlib.contextmanager
    def without_limit(self, job_id: str) -> Iterator[None]:
        """Let a job's hard limit not count the time of the block, such as while it waits for the broker.

        Afterwards it begins anew.
        """
        slot = next((slot for slot, message in list(self._busy.items()) if message.message_id == job_id), None)
        if slot is None:
            yield
            return
        message = self._busy[slot]
        self._row.stop_clock(slot)
        try:
            yield
        finally:
            if not message.slot_ended:
                lane, _, _ = message.slot_work
                self._row.start_clock(slot, self._limits_ns[lane])

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark a slot busy.

        A message does not start while nobody knows whether it is still this child's: its supervisor has not reached
        the server for as long as a lease lasts. If others got it meanwhile, this child is killed; if it drains, the
        message is left to its supervisor.

        Raises:
            SkipMessage: it was not to start before the child drained.
        """
        if not self._row.leased and not self._leased_again(broker):
            message.moved = True  # type: ignore[attr-defined]
            decide(message, Outcome("deferred", "lease"))
            raise SkipMessage("its lease may have lapsed")
        slot, lane = self._free.popleft(), self._lanes.get(message.queue_name, 0)
        id_, token = _lease_of(message)
        message.slot, message.slot_ended = slot, False  # type: ignore[attr-defined]
        message.slot_work = (lane, id_, token)  # type: ignore[attr-defined]
        self._busy[slot] = message
        self._row.start(slot, lane, id_, token, self._limits_ns[lane])

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note that the task ended."""
        slot = getattr(message, "slot", None)
        if slot is not None and not message.slot_ended:
            message.slot_ended = True  # type: ignore[attr-defined]
            self._row.end(slot)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note the end of a message that a middleware did not let run."""
        self.after_process_message(broker, message)

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Remember a message as finished, and free its slot. The acknowledgement may be on its way still."""
        slot = getattr(message, "slot", None)
        if slot is None:
            return
        if not getattr(message, "moved", False):
            self._row.finish(*message.slot_work)
        self._let_go(broker, message, slot)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Free the slot."""
        slot = getattr(message, "slot", None)
        if slot is not None:
            self._let_go(broker, message, slot)

    def _leased_again(self, broker: Broker) -> bool:
        """Wait until the leases are known to last, and say so; ``False`` when the child drains before."""
        if not self._waiting:
            self._waiting = True
            logger.warning("nothing is started: the leases were not renewed in time, others may have the messages")
        while not self._row.leased:
            if getattr(broker, "draining", False):
                return False
            time.sleep(LOOK_FOR_LEASES_S)
        self._waiting = False
        return True

    def _let_go(self, broker: Broker, message: MessageProxy, slot: int) -> None:
        if not message.slot_ended:  # an interrupt left the hooks early
            self.after_process_message(broker, message)
        message.slot = None  # type: ignore[attr-defined]
        del self._busy[slot]
        self._row.free(slot)
        self._free.append(slot)


M = TypeVar("M", bound=Middleware)


def install(broker: Broker, middleware: M) -> M:
    """Put a middleware in front of a broker's others and return it."""
    if broker.middleware:
        broker.add_middleware(middleware, before=type(broker.middleware[0]))
    else:
        broker.add_middleware(middleware)
    return middleware


def _lease_of(message: MessageProxy) -> tuple[bytes, int]:
    lease = getattr(message, "lease", None)
    return (lease.id, int(lease.token)) if lease is not None else (message.message_id.encode(), 0)
