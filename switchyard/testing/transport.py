"""Moves and inspection of messages in the memory of a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.errors import no_dead_letter
from switchyard.broker.held_message import requeued_copy
from switchyard.broker.interface import Arguments
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue import codec
from switchyard.broker.queue.results import NO_RECORD, CancelRecord
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.topology import Yard, lane_of_name
from switchyard.testing.broker import MemoryBroker
from switchyard.testing.stores import MemoryDeadLists, MemoryJobRecords, MemoryQuarantine


class MemoryTransport(PortableTransport):
    """The :class:`switchyard.broker.interface.Transport` of :class:`switchyard.testing.broker.MemoryBroker`."""

    finds_waiting = True

    def __init__(
        self, broker: MemoryBroker, yard: Yard, dead_lists: MemoryDeadLists, records: MemoryJobRecords
    ) -> None:
        super().__init__(broker, yard, dead_lists, MemoryQuarantine(), records)
        self._memory = broker

    def requeue(self, queue: str, message_id: str, *, arguments: Arguments | None = None) -> str:
        """Enqueue a dead letter's message anew, attempts forgotten."""
        letter = self._dead.get(queue, message_id)
        if letter is None:
            raise no_dead_letter(queue, message_id)
        self._dead.remove(queue, message_id)
        sent = len(self._memory.sent)
        try:
            self._memory.enqueue(requeued_copy(letter, self._yard.queue_of(queue).name, arguments))
        except BaseException:
            self._dead.add(letter)
            raise
        if len(self._memory.sent) == sent:  # it died again meanwhile, so that its id is known
            raise no_dead_letter(queue, message_id)
        return letter.id

    def restore(self, letter: DeadLetter) -> bool:
        """Put a dropped dead letter back, unless its message was enqueued again."""
        return not self._memory.knows(letter.id) and self._dead.add(letter)

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        """Return a message that waits, is scheduled or runs."""
        family, stored = self._yard.queue_of(queue).name, self._memory.waiting.get(message_id)
        if stored is not None and lane_of_name(stored.lane)[0] == family:
            return stored.message()
        held = self._memory.held.get(message_id)
        if held is None or lane_of_name(held.queue_name)[0] != family:
            return None
        found: Message[Any] = held.copy()  # of the message inside
        return found

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        """Remove a message that waits, request cancellation of one that runs."""
        if self.find_message(queue, message_id) is None:
            return "unknown"
        if message_id in self._memory.held:
            self._memory.held[message_id].cancel_requested = True
            self._memory.stopping.add(message_id)
            return "asked"
        del self._memory.waiting[message_id]
        self._memory.release_key(message_id)
        self._memory.finished.add(message_id)
        return "cancelled"

    def due_now(self, queue: str, message_id: str) -> str:
        """Let a scheduled message start at once."""
        if self.find_message(queue, message_id) is None:
            return "unknown"
        stored, now = self._memory.waiting.get(message_id), self._memory.now_ms()
        if stored is None or stored.ready_ms <= now:
            return "waiting"
        message = stored.message()
        message.options["due_at"] = now
        self._memory.waiting[message_id] = replace(stored, ready_ms=now, body=codec.encode(message, grown=True))
        return "due"

    def cancel_requested(self, held: Message[Any] | MessageProxy) -> bool:
        """Whether the cancellation of a message that runs was requested."""
        return bool(getattr(held, "cancel_requested", False))
