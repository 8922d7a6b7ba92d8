"""A consumer's messages: how they are read and held; its answers, which any thread notes and its own thread sends."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from switchyard.addons.rabbitmq.connections import CONTENT_TYPE
from switchyard.broker.errors import UnencodablePayload
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue import codec, json_body
from switchyard.broker.queue.operations import Lease, QueueOperations
from switchyard.broker.worker.acks import AckBarrier
from switchyard.broker.worker.prefetch import HeldMarks

# Number of a message that another library published: two of one id cannot be told apart.
NO_NUMBER: Final = b"0"
_HIGHEST: Final = (1 << 63) - 1


class Publication(NamedTuple):
    """A delivered message's id, and the number of its publication; empty for what is no message."""

    id: str = ""
    number: bytes = NO_NUMBER

    @property
    def mark(self) -> int:
        """Number of the publication, or a hash of its id, as a positive number of 63 bits."""
        if self.number != NO_NUMBER:
            return int(self.number) & _HIGHEST
        return int.from_bytes(hashlib.blake2b(self.id.encode(), digest_size=8).digest()) & _HIGHEST


# Until a delivery is read. Such a tag must be known: an acknowledgement of several would include one that is not.
UNREAD: Final = Publication()
# So many acknowledgements, and more, wait for the background's flush of the records, while there is other work.
MANY: Final = 16


class _Ack(NamedTuple):
    """Delivery tag of a finished message, and the flush that must have ended before it is acknowledged."""

    flush: int
    tag: int


class Outgoing:
    """Acknowledgements, returns and rejections of a channel, and what is not acknowledged on it.

    Args:
        queue: Name of the queue whose records are written; of all by default.
        window: Unacknowledged messages after which the server delivers no more. It has processed all acknowledgements
            but the last so many.
        note_returns: Called with the marks of publications before they go back to their queue.
        held: Where the publications that are held are written for the supervisor.
    """

    def __init__(
        self,
        channel: Any,
        barrier: AckBarrier | None,
        *,
        window: int,
        queue: str = "",
        note_returns: Callable[[list[int]], None] | None = None,
        held: HeldMarks | None = None,
    ) -> None:
        self._note_returns, self._held = note_returns, held
        self._cells: dict[int, int] = {}
        self.unacked: dict[int, Publication] = {}
        self._acknowledged: deque[Publication] = deque(maxlen=window)
        self._channel, self._barrier, self._queue = channel, barrier, queue
        self._acks: deque[_Ack] = deque()
        self._returns: deque[int] = deque()
        self._rejected: deque[int] = deque()
        self._sending = threading.Lock()

    @property
    def pending(self) -> bool:
        """Whether there is anything to send, or some of it is being sent."""
        # In this order: what is taken from the lists is taken while the lock is held.
        return bool(self._acks or self._returns or self._rejected) or self._sending.locked()

    def receive(self, tag: int, publication: Publication) -> None:
        self.unacked[tag] = publication
        if self._held is not None and (cell := self._held.hold(publication.mark)) is not None:
            self._cells[tag] = cell

    def lose(self, ended: Sequence[Publication]) -> None:
        """Mark unfinished deliveries as returned by a live process, so that none becomes a lapse suspect."""
        if self._note_returns is not None:
            without = set(ended)
            self._note_returns([each.mark for each in self.unacked.values() if each.id and each not in without])
        for tag in list(self._cells):
            self._release(tag)

    def ack(self, tag: int) -> None:
        """Note a message that has ended; it is acknowledged after the next flush of the records."""
        self._acks.append(_Ack(self._barrier.begun + 1 if self._barrier else 0, tag))

    def drop(self, tag: int) -> None:
        """Note a message of which no record waits to be written."""
        self._acks.append(_Ack(0, tag))

    def give_back(self, tag: int) -> None:
        self._returns.append(tag)

    def reject(self, tag: int) -> None:
        self._rejected.append(tag)

    def ended(self, *, processed: bool) -> list[Publication]:
        """Return the messages that have ended and may be unacknowledged.

        ``processed``: the server has processed all that was sent.
        """
        sent = () if processed else self._acknowledged
        waiting = [self.unacked[ack.tag] for ack in list(self._acks) if ack.tag in self.unacked]
        return [publication for publication in (*sent, *waiting) if publication.id]

    def send(self, *, busy: bool = False) -> None:
        """Send what was noted. After ``BrokerUnavailable`` (records not written) acknowledgements are kept.

        ``busy``: there are messages to hand out, so ``MANY`` acknowledgements or more wait for the background's flush.
        """
        with self._sending:
            if self._returns:
                self._send_returns()
            while self._rejected:
                self._nack(self._rejected.popleft(), requeue=False)
            if self._acks:
                self._acknowledge(busy=busy)

    def _send_returns(self) -> None:
        tags = []
        while self._returns:
            tags.append(self._returns.popleft())
        if self._note_returns is not None:
            self._note_returns([self.unacked[tag].mark for tag in tags if tag in self.unacked])
        for tag in tags:
            self._nack(tag, requeue=True)

    def _nack(self, tag: int, *, requeue: bool) -> None:
        if tag in self.unacked:
            self._channel.basic_nack(tag, requeue=requeue)
            del self.unacked[tag]
            self._release(tag)

    def _release(self, tag: int) -> None:
        if self._held is not None and (cell := self._cells.pop(tag, None)) is not None:
            self._held.release(cell)

    def _acknowledge(self, *, busy: bool) -> None:
        """Acknowledge all messages whose records are written, with one frame where no older one is unfinished."""
        barrier = self._barrier
        if barrier is not None and not (busy and barrier.in_background and len(self._acks) >= MANY):
            barrier.flush(with_starts=False, queue=self._queue)
        written = barrier.written_of(self._queue) if barrier is not None else 0
        done: dict[int, None] = {}
        while self._acks and self._acks[0].flush <= written:
            done[self._acks.popleft().tag] = None
        # Before the server is told: a connection that breaks meanwhile leaves it unknown whether the server heard.
        self._acknowledged.extend(self.unacked[tag] for tag in done if tag in self.unacked)
        oldest = 0
        for tag in self.unacked:
            if tag not in done:
                break
            oldest = tag
        if oldest:
            self._channel.basic_ack(oldest, multiple=True)
        for tag in done:
            if tag > oldest and tag in self.unacked:
                self._channel.basic_ack(tag)
            self.unacked.pop(tag, None)
            self._release(tag)


class RabbitMessage(HeldMessage):
    """A message with the consumer that received it, and its delivery tag there.

    The fencing token of its lease is the number of its publication: two copies of a message have different ones, and
    one that is delivered again has the same.
    """

    def __init__(
        self, message: Message[Any], lease: Lease, family: QueueOperations, *, source: object, tag: int, body: bytes
    ) -> None:
        super().__init__(message, lease, family)
        self.source, self.tag, self.body = source, tag, body
        self.received_s = time.monotonic()


def is_unstarted(message: RabbitMessage) -> bool:
    """Return whether a message was skipped, because of a lease in doubt or a quiet child, and must run elsewhere."""
    outcome = message.outcome
    return outcome is not None and outcome.kind == "deferred" and outcome.reason in ("lease", "quiet")


def ends_suspicion(message: RabbitMessage) -> bool:
    """Return whether a message is a lapse suspect that has ended, well or not; a deferred one stays a suspect."""
    outcome = message.outcome
    return message.lapses is not None and (outcome is None or outcome.kind != "deferred")


def read(properties: Any, body: bytes, lane: str) -> tuple[Message[Any], bytes]:
    """Return a delivered message, and the number of its publication. Messages of stock Dramatiq are understood.

    Raises:
        UnreadableMessage: it is no message.
    """
    if properties.content_type == CONTENT_TYPE:
        message: Message[Any] = codec.decode(body, message_id=id_of(properties), lane=lane)
        number = str(properties.correlation_id or "")
        is_ours = number.isascii() and number.isdigit() and len(number) <= 20
        return message, number.encode() if is_ours else NO_NUMBER
    try:
        found: Message[Any] = Message.decode(body)
        fields = {"actor": found.actor_name, "sent_at": found.message_timestamp}
        fields |= {"args": list(found.args), "kwargs": found.kwargs, "options": found.options}
        raw = json_body.encode(fields, limit_bytes=None)
    except (DecodeError, TypeError, KeyError, AttributeError, UnencodablePayload) as error:
        raise codec.UnreadableMessage(f"it is neither a message of this library nor of Dramatiq: {error}") from error
    id_: Any = found.message_id
    return codec.decode(raw, message_id=id_ if isinstance(id_, str) else "", lane=lane), NO_NUMBER


def id_of(properties: Any) -> str:
    """Return the id of a delivery. pika leaves one that is not UTF-8 as bytes."""
    id_ = properties.message_id or ""
    return str(id_, "utf-8", "backslashreplace") if isinstance(id_, bytes) else id_
