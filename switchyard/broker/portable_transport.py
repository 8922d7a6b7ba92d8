"""Moves on any Dramatiq broker: enqueue a copy at the new place, then let the worker acknowledge the held message.

A crash between the two steps leaves the message in both places: it may run twice, it is never lost.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.broker.errors import QueueFull, not_quarantined
from switchyard.broker.held_message import moved_copy, requeued_copy
from switchyard.broker.interface import Arguments, Keep
from switchyard.broker.queue.circuits import Circuit
from switchyard.broker.queue.operations import NO_RECORD, CancelRecord
from switchyard.broker.shapes import ActorPause, DeadLetter, LaneStats, Moved, Page, QueueStats, Unreadable
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Yard

FIRST_PARKED_MS: Final = 1_000
MOST_PARKED_MS: Final = 10_000


class CountsLanes(Protocol):
    """A broker that reports figures of its lanes."""

    def lane_stats(self, lane: str) -> LaneStats: ...

    def rejected(self, lane: str) -> int:
        """Return how many messages the broker itself moved to its list of rejected messages."""


class PortableTransport:
    """A :class:`switchyard.broker.interface.Transport` that needs only ``enqueue`` and a server for dead lists.

    A moved message is acknowledged, also where Dramatiq rejects it: its broker would keep a second copy.
    """

    finds_waiting = False

    def __init__(
        self, broker: Broker, yard: Yard, dead_lists: DeadLists, quarantine: Quarantine, records: JobRecords
    ) -> None:
        self._broker = broker
        self._yard = yard
        self._dead = dead_lists
        self._quarantine = quarantine
        self._records = records
        _acknowledge_what_was_moved(broker)

    def divert(self, held: Message[Any] | MessageProxy, *, lane: str, delay_ms: int, options: dict[str, Any]) -> None:
        self._broker.enqueue(moved_copy(held, lane, options), delay=delay_ms or None)
        held.moved = True  # type: ignore[union-attr]

    def defer(self, held: Message[Any] | MessageProxy, *, delay_ms: int, options: dict[str, Any]) -> None:
        self.divert(held, lane=held.queue_name, delay_ms=delay_ms, options=options)

    def park(self, held: Message[Any] | MessageProxy, *, call: str, parked_ms: int, options: dict[str, Any]) -> int:
        """Enqueue a copy where it came from. Any worker may get it: due in 1 s, later in up to 10 s."""
        highest_ms = min(max(parked_ms, FIRST_PARKED_MS), MOST_PARKED_MS)
        delay_ms = int(highest_ms * random.uniform(0.8, 1.0))  # noqa: S311  no secret
        self.defer(held, delay_ms=delay_ms, options={**options, "parked_ms": parked_ms + delay_ms})
        return delay_ms

    def unpark(self, held: Message[Any] | MessageProxy, *, call: str) -> None:
        """Do nothing: this broker keeps no list of parked messages."""

    def known_lately(self, held: Message[Any] | MessageProxy, *, call: str, within_ms: int) -> bool:
        """Return ``False``: workers register no calls on this broker."""
        return False

    def isolate(self, held: Message[Any] | MessageProxy) -> bool:
        """Return ``False``: this broker has no lane for isolated runs."""
        return False

    def return_paused(self, held: Message[Any] | MessageProxy) -> bool:
        """Return ``False``: this broker pauses no actors."""
        return False

    def circuit_stops(self, held: Message[Any] | MessageProxy, circuit: Circuit) -> str:
        """Return "": this broker has no circuits."""
        return ""

    def note_circuit(
        self,
        held: Message[Any] | MessageProxy,
        circuit: Circuit,
        outcome: str,
        *,
        until_ms: int = 0,
        reason: str = "",
    ) -> str:
        """Return ``closed``: this broker has no circuits."""
        return "closed"

    def pause_for(self, held: Message[Any] | MessageProxy, pause: ActorPause) -> bool:
        """Return ``False``: this broker pauses no actors."""
        return False

    def dead_letter(self, held: Message[Any] | MessageProxy, dead_letter: DeadLetter) -> None:
        self._dead.add(dead_letter)
        held.moved = True  # type: ignore[union-attr]

    def requeue(
        self, queue: str, letters: Mapping[str, int], *, nonce: str, arguments: Arguments | None = None
    ) -> dict[str, Moved]:
        answers: dict[str, Moved] = {}
        for letter in self._named(queue, letters, answers):
            try:
                answers[letter.id] = "moved" if self._requeue(letter, arguments) else "gone"
            except QueueFull:
                answers[letter.id] = "full"
            except MiddlewareError:
                answers[letter.id] = "unread"
        return answers

    def discard(self, queue: str, letters: Mapping[str, int], *, nonce: str, keep: Keep) -> dict[str, Moved]:
        answers: dict[str, Moved] = {}
        found = self._named(queue, letters, answers)
        keep(found)
        return answers | {each.id: "moved" if self._dead.remove(queue, each.id) else "gone" for each in found}

    def take_back(self, queue: str, letters: Sequence[DeadLetter], *, nonce: str) -> set[str]:
        """Return nothing: a waiting message cannot be found here."""
        return set()

    def restore(self, letter: DeadLetter) -> bool:
        self._dead.add(letter)
        return True

    def find_dead_letter(self, queue: str, message_id: str) -> DeadLetter | None:
        return self._dead.get(queue, message_id)

    def dead_letters(self, queue: str, *, cursor: int = 0, limit: int = 100) -> Page[DeadLetter]:
        return self._dead.page(queue, cursor=cursor, limit=limit)

    def unreadable(self, queue: str, *, cursor: int = 0, limit: int = 100) -> Page[Unreadable]:
        return self._quarantine.page(queue, cursor=cursor, limit=limit)

    def requeue_quarantined(self, queue: str, message_id: str) -> None:
        """Refuse: workers on this transport quarantine nothing."""
        raise not_quarantined(queue, message_id)

    def discard_quarantined(self, queue: str, message_id: str) -> None:
        raise not_quarantined(queue, message_id)

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        """Return ``None``: no queue can be searched."""
        return None

    def knows(self, queue: str, message_id: str) -> bool:
        """Return ``False``: messages of one id are enqueued as often as they are sent."""
        return False

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        """Return ``unknown``: no queue can remove a message; the job's record carries the request."""
        return "unknown"

    def due_now(self, queue: str, message_id: str) -> str:
        """Return ``unknown``: no queue can find a delayed message."""
        return "unknown"

    def cancel_requested(self, held: Message[Any] | MessageProxy) -> bool:
        return self._records.cancel_requested(held.message_id)

    def stats(self, queue: str) -> QueueStats:
        family = self._yard.queue_of(queue)
        counting = cast(CountsLanes, self._broker)
        lanes = (family.name, family.retry_lane)
        live, retry = (counting.lane_stats(lane) for lane in lanes)
        set_aside = self._quarantine.count(family.name) + sum(counting.rejected(lane) for lane in lanes)
        return QueueStats(family.name, live, retry, dead=self._dead.count(family.name), quarantined=set_aside)

    def refusal(self) -> tuple[str, str]:
        """Return nothing: its server is not asked."""
        return "", ""

    def _named(self, queue: str, letters: Mapping[str, int], answers: dict[str, Moved]) -> list[DeadLetter]:
        """Return those that are in the dead list as they are named; ``answers`` gets the others."""
        found = {id_: self._dead.get(queue, id_) for id_ in letters}
        answers |= {id_: "gone" if letter is None else "newer" for id_, letter in found.items()}
        return [each for each in found.values() if each is not None and each.died_at == letters[each.id]]

    def _requeue(self, letter: DeadLetter, arguments: Arguments | None) -> bool:
        """Enqueue a dead letter's message anew, then remove the letter; ``False`` when it died again meanwhile."""
        self._broker.enqueue(requeued_copy(letter, self._yard.queue_of(letter.queue).name, arguments))
        self._dead.remove(letter.queue, letter.id, as_read=letter)
        return True


def _acknowledge_what_was_moved(broker: Broker) -> None:
    consume = broker.consume

    def consume_and_acknowledge(*args: Any, **kwargs: Any) -> Consumer:
        consumer = consume(*args, **kwargs)
        nack = consumer.nack

        def nack_unless_moved(message: MessageProxy) -> None:
            if getattr(message, "moved", False):
                consumer.ack(message)
            else:
                nack(message)

        consumer.nack = nack_unless_moved  # type: ignore[method-assign]
        return consumer

    broker.consume = consume_and_acknowledge  # type: ignore[method-assign]
