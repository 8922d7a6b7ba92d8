"""Operations that middleware and apps may use on any broker.

Beyond Dramatiq's ``Broker``: moves of a message that a worker holds, to its retry lane, its dead list, or back to its
queue for later. Every move is at-least-once: after a crash it may leave two copies, never none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message

from switchyard.broker.errors import not_quarantined
from switchyard.broker.queue.limits import Circuit
from switchyard.broker.queue.operations import NO_RECORD, CancelRecord
from switchyard.broker.redis.server_clock import ServerClock
from switchyard.broker.shapes import ActorPause, DeadLetter, Moved, Page, QueueStats, Unreadable
from switchyard.broker.stores.alert_groups import AlertGroups
from switchyard.broker.stores.batches import Batches
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import GroupBarriers, RateWindows
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier

# Messages that a worker is processing and will acknowledge.
Held = Message[Any] | MessageProxy
Arguments = tuple[list[Any], dict[str, Any]]
Keep = Callable[[Sequence[DeadLetter]], None]
# Keeps messages (with their delay in ms) until a commit; returns those that are to be sent now.
Postpone = Callable[[Sequence[Message[Any]], int | None], Sequence[Message[Any]]]


class Transport(Protocol):
    """Moves and inspects messages: held ones, dead letters, those that wait, and figures.

    ``held`` is a message that a worker is processing and will acknowledge. What has a body here is so on a broker that
    can do no such thing: it has no lists of parked messages, no circuits, no pauses of actors, and finds nothing.

    Attributes:
        finds_waiting: :meth:`find_message` and :meth:`cancel` find a waiting message by its id. Otherwise jobs are
            recorded when they are enqueued.
    """

    finds_waiting: bool
    _dead: DeadLists
    _quarantine: Quarantine

    def divert(self, held: Held, *, lane: str, delay_ms: int, options: dict[str, Any]) -> None:
        """Put a copy of a held message, with changed options, into a lane, due in ``delay_ms``."""

    def defer(self, held: Held, *, delay_ms: int, options: dict[str, Any]) -> None:
        """Put a held message back to where it came from, due in ``delay_ms``, without spending an attempt."""

    def park(self, held: Held, *, call: str, parked_ms: int, options: dict[str, Any]) -> int:
        """Put a held message back to where it came from, until a worker that knows its call consumes there.

        Args:
            call: See :func:`switchyard.middleware.arguments.call_of`.
            parked_ms: How long it was parked before; the sum with the new delay is stored in its option ``parked_ms``.

        Returns:
            Milliseconds after which any worker may get it again.
        """

    def unpark(self, held: Held, *, call: str) -> None:
        """Remove a parked message that is about to run from the list of parked messages, where there is one."""
        return

    def known_lately(self, held: Held, *, call: str, within_ms: int) -> bool:
        """Whether a worker that knows what a held message calls was seen in the last ``within_ms``."""
        return False

    def isolate(self, held: Held) -> bool:
        """Put a held message where it runs alone, no attempt spent; ``False`` where there is no such place."""
        return False

    def return_paused(self, held: Held) -> bool:
        """Return a held message whose actor was paused after it was fetched, unstarted; whether that was so."""
        return False

    def circuit_stops(self, held: Held, circuit: Circuit) -> str:
        """Return a held message, unstarted, whose circuit is open.

        Returns:
            ``stopped`` when that was so, ``probe`` when it is the message that may start, "" when it is closed.
        """
        return ""

    def note_circuit(self, held: Held, circuit: Circuit, outcome: str, *, until_ms: int = 0, reason: str = "") -> str:
        """Count a call of a dependency; see :func:`switchyard.broker.queue.limits.note_circuit`."""
        return "closed"

    def pause_for(self, held: Held, pause: ActorPause) -> bool:
        """Pause an actor in a held message's queue; ``False`` where that cannot be."""
        return False

    def dead_letter(self, held: Held, dead_letter: DeadLetter) -> None:
        """Put a held message into its queue's dead list as ``dead_letter``. The same id twice stays one."""

    def requeue(
        self, queue: str, letters: Mapping[str, int], *, nonce: str, arguments: Arguments | None = None
    ) -> dict[str, Moved]:
        """Move dead letters back to their live queue, attempts forgotten; return what became of each.

        Repeated with its nonce, it moves none twice.

        Args:
            letters: The time of death, ms since the epoch, by id; at most 500. One that died again since stays, as do
                those that a full queue has no room for (``full``).
            arguments: Positional ones and those by name, in place of the messages' own.
        """

    def discard(self, queue: str, letters: Mapping[str, int], *, nonce: str, keep: Keep) -> dict[str, Moved]:
        """Drop dead letters, as ``requeue``; ``keep`` gets the letters before they are dropped."""

    def take_back(self, queue: str, letters: Sequence[DeadLetter], *, nonce: str) -> set[str]:
        """Put messages that a requeue moved, and no worker has fetched since, back into the dead list.

        Args:
            letters: As they are to be there, without their messages.
            nonce: Of the requeue.

        Returns:
            Ids of those that are there, also by an earlier call; none where waiting messages cannot be found.
        """
        return set()

    def restore(self, letter: DeadLetter) -> bool:
        """Put a dropped dead letter back into its dead list; ``False`` when its message is in the queue again."""

    def find_dead_letter(self, queue: str, message_id: str) -> DeadLetter | None:
        """Return one dead letter, or ``None``."""
        return self._dead.get(queue, message_id)

    def dead_letters(self, queue: str, *, cursor: int = 0, limit: int = 100) -> Page[DeadLetter]:
        """Return dead letters, newest first."""
        return self._dead.page(queue, cursor=cursor, limit=limit)

    def unreadable(self, queue: str, *, cursor: int = 0, limit: int = 100) -> Page[Unreadable]:
        """Return quarantined messages, newest first."""
        return self._quarantine.page(queue, cursor=cursor, limit=limit)

    def requeue_quarantined(self, queue: str, message_id: str) -> None:
        """Move a quarantined message back to its lane, after an upgrade to a release that understands it.

        Raises:
            NotFound: it is not in the quarantine.
            ActRefused: this process does not understand it either, or the queue is at its ``max_depth``.
        """
        raise not_quarantined(queue, message_id)

    def discard_quarantined(self, queue: str, message_id: str) -> None:
        """Drop a quarantined message for good; ``NotFound`` when it is not in the quarantine."""
        raise not_quarantined(queue, message_id)

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        """Return a message that waits, is scheduled or is held; ``None`` where it is not, or cannot be found."""
        return None

    def knows(self, queue: str, message_id: str) -> bool:
        """Whether a message of this id waits, runs or has ended, so that another is not enqueued; not a dead one."""
        return False

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        """Keep a message from starting.

        Args:
            end: Record of its job as cancelled, written in the same step where the transport can.

        Returns:
            ``cancelled``: it never starts. ``asked``: a worker holds it. ``unknown``: the broker does not know it, and
                the record of its job carries the request.
        """
        return "unknown"

    def due_now(self, queue: str, message_id: str) -> str:
        """Make a scheduled message due at once.

        Returns:
            ``due``: it starts as soon as a slot is free. ``waiting``: it waits or is held already. ``unknown``: the
                queue has no such message, or cannot find it.
        """
        return "unknown"

    def cancel_requested(self, held: Held) -> bool:
        """Whether the cancellation of a held message was requested; ``BrokerUnavailable`` when no server answers it."""

    def stats(self, queue: str) -> QueueStats:
        """Return the figures of a queue family."""

    def refusal(self) -> tuple[str, str]:
        """Return why a server that answers accepts no work, as half a sentence, and the remedy; "" where it does.

        Raises ``BrokerUnavailable`` where it does not answer.
        """
        return "", ""


@dataclass(frozen=True, slots=True)
class Facilities:
    """The objects that all processes of a yard reach through their broker.

    ``batches`` is ``None`` where the ends of messages cannot be counted: the queues are no queues of this library.
    """

    yard: Yard
    transport: Transport
    records: JobRecords
    barrier: AckBarrier
    windows: RateWindows
    alerts: AlertGroups
    pools: PoolReports
    facts: FactStore
    groups: GroupBarriers
    clock: ServerClock | None = None
    batches: Batches | None = None


def attach(broker: Broker, facilities: Facilities) -> None:
    """Make a broker carry its yard's facilities."""
    broker.switchyard = facilities  # type: ignore[attr-defined]


def facilities(broker: Broker | None = None) -> Facilities:
    """Return the facilities attached to ``broker``, or to Dramatiq's global broker.

    Raises:
        RuntimeError: the broker was not built by ``switchyard/wiring.py``.
    """
    broker = broker or dramatiq.get_broker()
    found = getattr(broker, "switchyard", None)
    if not isinstance(found, Facilities):
        raise RuntimeError(  # noqa: TRY004  a matter of wiring, not of types
            f"{type(broker).__name__} carries no Switchyard facilities; "
            "build it with switchyard.wiring.build_broker (django-dramatiq's DRAMATIQ_BROKER names it)"
        )
    return found
