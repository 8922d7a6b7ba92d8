"""Moves on any Dramatiq broker: enqueue a copy at the new place, then let the worker acknowledge the held message.

A crash between the two steps leaves the message in both places: it may run twice, it is never lost.
"""

import random
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.middleware import MiddlewareError

from switchyard.broker.errors import QueueFull
from switchyard.broker.held_message import moved_copy, requeued_copy
from switchyard.broker.interface import Arguments, Held, Keep, Transport
from switchyard.broker.shapes import DeadLetter, LaneStats, Moved, QueueStats
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


class PortableTransport(Transport):
    """Transport that needs only ``enqueue`` and a server for dead lists.

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

    def divert(self, held: Held, *, lane: str, delay_ms: int, options: dict[str, Any]) -> None:
        self._broker.enqueue(moved_copy(held, lane, options), delay=delay_ms or None)
        held.moved = True  # type: ignore[union-attr]

    def defer(self, held: Held, *, delay_ms: int, options: dict[str, Any]) -> None:
        self.divert(held, lane=held.queue_name, delay_ms=delay_ms, options=options)

    def park(self, held: Held, *, call: str, parked_ms: int, options: dict[str, Any]) -> int:
        """Enqueue a copy where it came from. Any worker may get it: due in 1 s, later in up to 10 s."""
        highest_ms = min(max(parked_ms, FIRST_PARKED_MS), MOST_PARKED_MS)
        delay_ms = int(highest_ms * random.uniform(0.8, 1.0))  # noqa: S311  no secret
        self.defer(held, delay_ms=delay_ms, options={**options, "parked_ms": parked_ms + delay_ms})
        return delay_ms

    def dead_letter(self, held: Held, dead_letter: DeadLetter) -> None:
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
        removed = ((each.id, self._dead.remove(queue, each.id, as_read=each)) for each in found)
        return answers | {id_: "moved" if done else "gone" for id_, done in removed}

    def restore(self, letter: DeadLetter) -> bool:
        self._dead.add(letter)
        return True

    def cancel_requested(self, held: Held) -> bool:
        return self._records.cancel_requested(held.message_id)

    def stats(self, queue: str) -> QueueStats:
        family = self._yard.queue_of(queue)
        counting = cast(CountsLanes, self._broker)
        lanes = (family.name, family.retry_lane)
        live, retry = (counting.lane_stats(lane) for lane in lanes)
        set_aside = self._quarantine.count(family.name) + sum(counting.rejected(lane) for lane in lanes)
        return QueueStats(family.name, live, retry, dead=self._dead.count(family.name), quarantined=set_aside)

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
