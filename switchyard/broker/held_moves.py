"""Moves of held messages: one step on the server each, so that a message is never in two places or in none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from dramatiq.message import Message

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.keys import Lane
from switchyard.broker.queue import codec
from switchyard.broker.queue.dead_moves import encode_letter, rejected
from switchyard.broker.queue.operations import NO_ROW, HistoryRow, Lease, Move, QueueOperations
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.worker.acks import AckBarrier, Acks
from switchyard.broker.worker.prefetch import PrefetchCredit
from switchyard.broker.worker.wakeup import CancellationPoll


class MovingBroker(Protocol):
    """The part of a :class:`switchyard.broker.redis_broker.RedisBroker` that moves use."""

    barrier: AckBarrier | None

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]: ...

    def level(self, message: Message[Any]) -> int: ...

    def emit_before(self, signal: str, *args: Any) -> None: ...

    def emit_after(self, signal: str, *args: Any) -> None: ...

    def report_stale(self, family: QueueOperations, leases: Iterable[Lease]) -> None: ...


class HeldMoves:
    """Moves held messages, for Dramatiq's own retries as for this project's middleware.

    A message whose lease was lost belongs to another worker by now: it is not moved, and the loss is reported.
    """

    def __init__(self, broker: MovingBroker) -> None:
        self._broker = broker

    def move(self, held: HeldMessage, message: Message[Any], *, move: Move, delay: int | None) -> bool:
        """Move a held message into the lane that its copy ``message`` names, in the queue family it is in.

        The copy may have grown beyond the size that a new message may have; ``delay`` is in milliseconds. Returns
        ``False`` when the lease was lost.
        """
        lane = self._broker.lane(message.queue_name)[1]
        self._broker.emit_before("enqueue", message, delay)
        body, level = codec.encode(message, grown=True), self._broker.level(message)
        how: dict[str, Any] = {"body": body, "delay_ms": delay or 0, "level": level, "row": self._row_of(held)}
        moved = held.family.move(held.lease, move=move, lane=lane, **how)
        self._note(held, moved)
        if moved:
            self._broker.emit_after("enqueue", message, delay)
        return moved

    def isolate(self, held: HeldMessage) -> None:
        self._note(held, held.family.isolate(held.lease))

    def dead_letter(self, held: HeldMessage, dead_letter: DeadLetter | None = None) -> None:
        """Move a held message to the dead list; without a dead letter, one is made of Dramatiq's rejection."""
        dead_letter = dead_letter or rejected(held, held.family.keys.queue)
        letter, row = encode_letter(dead_letter).encode(), self._row_of(held)
        self._note(held, held.family.dead_letter(held.lease, letter, row))

    def _row_of(self, held: HeldMessage) -> HistoryRow:
        """Return the row of the attempt that ends with the move; of a deferral there is none."""
        return NO_ROW if self._broker.barrier is None else self._broker.barrier.row_of(held)

    def _note(self, held: HeldMessage, moved: bool) -> None:
        held.moved = True
        if not moved:
            self._broker.report_stale(held.family, [held.lease])


class ConsumingBroker(MovingBroker, Protocol):
    """The part of a :class:`switchyard.broker.redis_broker.RedisBroker` that its consumers use."""

    in_flight: dict[str, HeldMessage]
    draining: bool
    quiet: Callable[[], bool]
    knows: Callable[[str], bool]
    moves: HeldMoves
    cancellations: CancellationPoll

    @property
    def credit(self) -> PrefetchCredit: ...

    def acks_of(self, family: QueueOperations, owner: str) -> Acks: ...

    def lost_lease(self, owner: str) -> None: ...
