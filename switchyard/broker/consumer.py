"""Consumer of one lane: leases messages, hands them to Dramatiq's worker, and acknowledges them in batches."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dramatiq.actor import Actor
from dramatiq.broker import Consumer as DramatiqConsumer
from dramatiq.broker import MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.broker.errors import BrokerError, BrokerUnavailable, PlaceChanged
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue import codec, limits
from switchyard.broker.queue.operations import AT_ONCE, Fetched, Grant, Lease, QueueOperations, fetched, lane_of
from switchyard.broker.queue.unroutable import ParkedCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.broker.topology import lane_of_name
from switchyard.broker.worker.prefetch import POLL_CANCELLATIONS_S, Wakeup

if TYPE_CHECKING:
    from switchyard.broker.redis_broker import RedisBroker

# After this pause the server has closed an abandoned connection, and runs nothing more that was sent on it.
CLOSING_PAUSE_S = 0.05
# Acknowledgements wait for the next fetch, but no longer than this where there is no credit for one.
ACKS_WAIT_S = 0.02


class Consumer(DramatiqConsumer):
    """Reads one lane for one owner.

    Finished messages are acknowledged with the next fetch; while a wake-up is pending, by the thread that ran them.
    Each step (:meth:`_work`) is decided by the first of these facts that holds::

        fact               step                                                     then
        holdings unknown   release what the server holds for the owner              known
                           and this process does not know
        wake-up pending    wait for its answer: messages, or an empty lane          not pending
        adoptable calls    lease messages that waited for a worker that knows them  fewer calls
        lane empty         request the wake-up, and with it the next fetch where    pending
                           this is the only consumer (its credit is reserved)
        otherwise          fetch                                                    lane empty, or not

    Holdings are unknown while the answer to a fetch may be unread: at the start, and after a wake-up was abandoned. So
    they are once another server took over: it may lack acknowledgements that the former one answered.
    """

    def __init__(self, broker: RedisBroker, family: QueueOperations, owner: str, *, timeout_ms: int) -> None:
        self._broker, self._family = broker, family
        self.owner, self._lane = owner, lane_of(owner)
        self._lane_name = family.keys.lane_name(self._lane)
        self._timeout_s = timeout_ms / 1000
        self.closed = False
        self._credit = broker.credit_of(self._lane_name)
        self._credit.consumers += 1
        self._acks = broker.acks_of(family, owner)
        self._requests = itertools.count(time.time_ns())
        self._ready: deque[HeldMessage] = deque()
        self._wakeup = Wakeup(family.calls, family.keys.wakeup(self._lane))
        self._request = self._reserved_credit = self._server_changes = 0
        self._share_requested = self._holdings_known = self._lane_empty = False
        self._sharing = threading.Lock()
        self._due_at_s: float | None = None
        self._parked = ParkedCalls(family, self._lane, owner, knows=broker.knows)

    def __next__(self) -> HeldMessage | None:
        """Return the next message, or ``None`` when none came within the timeout.

        Raises:
            BrokerError: the server is away or refused a fetch, or this owner lost its lease. As a ``ConnectionClosed``
                it makes Dramatiq request another consumer.
        """
        give_up_s = time.monotonic() + self._timeout_s
        try:
            while True:
                if self._ready:
                    message = self._ready.popleft()
                    self._broker.in_flight[message.message_id] = message
                    return message
                self._broker.cancellations.run(self._broker.in_flight)
                if self._broker.draining or self._broker.quiet():
                    self._drain()
                    return None
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._work(min(left_s, POLL_CANCELLATIONS_S) if self._broker.in_flight else left_s)
        except BrokerError:
            self._stop_listening()
            if self._broker.draining:
                self._holdings_known = False  # no other consumer follows this one
                return None
            raise

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a finished message. Never fails: an acknowledgement that cannot be sent now is sent later.

        Where sending may take a while, the hook ``before_send_acks`` is called first, with the message.
        """
        assert isinstance(message, HeldMessage)  # noqa: S101  a worker's messages come from this class
        if not message.moved:
            self._acks.add(message.lease)
        self._release_credit(message)
        if self._wakeup.pending:
            self._broker.emit_before("send_acks", message)
            self._acks.send()

    def nack(self, message: MessageProxy) -> None:
        """Move a rejected message to the dead list, unless a middleware did so."""
        assert isinstance(message, HeldMessage)  # noqa: S101  see ack
        if not message.moved:
            self._broker.dead_letter(message)
        self._release_credit(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Release messages to the head of their lane, in their order."""
        held = [message for message in messages if isinstance(message, HeldMessage) and not message.moved]
        self._family.release(self.owner, [message.lease for message in held])
        for message in held:
            self._release_credit(message)

    def close(self) -> None:
        """Abandon a pending wake-up, send acknowledgements, release messages that were not handed over."""
        if self.closed:  # Dramatiq closes a consumer again while it has no other
            return
        self.closed = True
        self._credit.consumers -= 1
        self._stop_listening()
        self._credit.release(len(self._ready))
        self._ready.clear()
        self._acks.send()
        self._holdings_known = False  # what was ready is no longer known here
        self._learn_holdings()

    def share(self) -> None:
        """Release the credit that is reserved while this consumer listens: another lane is consumed as well now.

        Called by other threads. Interrupts the listening thread locally: a token on the wake-up list might wake a
        consumer of another process, and the credit would stay reserved for up to 2 s.
        """
        with self._sharing:
            self._share_requested = True
            if self._reserved_credit:
                self._wakeup.interrupt()

    def interrupt(self) -> None:
        """End a wait for the wake-up in another thread."""
        self._wakeup.interrupt()

    def _work(self, timeout_s: float) -> None:
        if self._share_requested and self._reserved_credit:
            self._abandon_wakeup()
        if self._parked.find() and self._wakeup.pending:
            self._abandon_wakeup()
        self._learn_holdings()
        timeout_s = self._until_due(timeout_s)
        if self._wakeup.pending or (self._lane_empty and not self._parked.calls):
            try:
                self._listen(timeout_s) if self._wakeup.pending else self._start_listening(timeout_s)
            except BrokerUnavailable as error:
                if not (self._share_requested or isinstance(error, PlaceChanged)):  # share() closed it, maybe late
                    raise
                self._abandon_wakeup()
            return
        credit_timeout_s = min(timeout_s, ACKS_WAIT_S) if self._acks.pending else timeout_s
        if credit := self._credit.acquire(self, timeout_s=credit_timeout_s):
            if self._parked.calls:
                self._adopt(credit)
            else:
                self._fetch(credit, next(self._requests))
        else:
            self._acks.send()

    def _drain(self) -> None:
        """Fetch nothing more, release what a fetch that was sent ahead has leased, send acknowledgements."""
        if self._wakeup.pending:
            self._holdings_known = False
        self._stop_listening()
        time.sleep(CLOSING_PAUSE_S)
        self._learn_holdings()
        self._acks.send()

    def _release_credit(self, message: HeldMessage) -> None:
        if self._broker.in_flight.get(message.message_id) is message:
            self._broker.in_flight.pop(message.message_id, None)
        if message.has_credit:
            message.has_credit = False
            self._credit.release_finished()

    def _fetch(self, credit: int, request: int) -> None:
        acked: list[Lease] = []
        try:
            acked = self._acks.take_written()
            found = self._family.fetch(self.owner, min(credit, AT_ONCE), request=request, acked=acked)
        except BaseException:
            self._acks.put_back(acked)
            self._credit.release(credit)
            raise
        self._receive(found, credit)

    def _adopt(self, credit: int) -> None:
        try:
            self._acks.send()
            ours = {*list(self._broker.in_flight), *(held.message_id for held in self._ready)}
            adopted = self._parked.lease(credit, ours=ours)
        except BaseException:
            self._credit.release(credit)
            raise
        self._make_ready(adopted, credit, adopted=True)

    def _start_listening(self, timeout_s: float) -> None:
        """Request the wake-up. The only consumer of a worker reserves its credit, and sends the next fetch as well."""
        if self._credit.consumers > 1:
            self._wakeup.request()
        elif credit := self._credit.acquire(self, timeout_s=timeout_s):
            self._reserved_credit = credit
            if self._credit.consumers > 1:  # created meanwhile; it may not have seen the reserved credit
                self._reserved_credit = 0
                self._credit.release(credit)
                return
            self._request = next(self._requests)
            call = self._family.fetch_call(self.owner, min(credit, AT_ONCE), request=self._request)
            self._wakeup.request(script("fetch"), *call)
        else:
            return
        self._acks.send()

    def _listen(self, timeout_s: float) -> None:
        if (answer := self._wakeup.wait(timeout_s)) is None:
            return
        notified, found = answer
        credit, self._reserved_credit = self._reserved_credit, 0
        if found is not None:
            self._receive(fetched(self.owner, found), credit)
        elif credit:
            self._fetch(credit, self._request)
        elif credit := self._credit.acquire(self, timeout_s=0):
            self._fetch(credit, next(self._requests))
        else:
            self._lane_empty = False
            if notified:
                self._family.notify(self._lane)  # for another process, which has credit

    def _until_due(self, timeout_s: float) -> float:
        """Return how long to wait, at most until the next message is due; notify a waiting consumer when one is due.

        Blocking reads end up to 100 ms late, and another process may have credit where this one has none.
        """
        if self._due_at_s is None:
            return timeout_s
        until_due_s = self._due_at_s - time.monotonic()
        if until_due_s > 0:
            return min(timeout_s, until_due_s)
        self._due_at_s = None
        self._family.notify(self._lane)
        return timeout_s

    def _receive(self, found: Fetched, credit: int) -> None:
        self._due_at_s = time.monotonic() + found.next_due_ms / 1000 if found.next_due_ms else None
        if found.state == "over":
            limits.resume_over(self._family, self._own_actors())
        more = found.left or (found.next_due_ms == 0 and found.state == "ok")
        self._lane_empty = not more and len(found.grants) < credit
        self._make_ready(found, credit)

    def _make_ready(self, found: Fetched, credit: int, *, adopted: bool = False) -> None:
        """Queue the leased messages for the worker, and release the credit that is left."""
        try:
            if found.state == "gone":
                self._broker.lost_lease(self.owner)
                fact = "lost its lease, others have its messages; it goes on under another owner's name"
                raise BrokerError(f"{self.owner} {fact}")
            for grant in found.grants:
                if (message := receive(grant, self._family, self._lane_name, self._broker)) is not None:
                    if adopted:
                        message.adopted = True
                    self._ready.append(message)
                    credit -= 1
        finally:
            self._credit.release(credit)
            self._broker.report_stale(self._family, found.stale)  # last: a hook may fail

    def _learn_holdings(self) -> None:
        changes = self._family.calls.server_changes
        if not self._holdings_known or changes != self._server_changes:
            self._acks.release_unknown([held.lease for held in list(self._broker.in_flight.values())])
            own = self._own_actors()
            limits.declare(self._family, own)
            limits.declare_fair(self._family, self._broker.fair.get(self._family.keys.queue), own)
            self._holdings_known, self._server_changes = True, changes

    def _own_actors(self) -> list[Actor[..., Any]]:
        actors = list(self._broker.actors.values())
        return [each for each in actors if lane_of_name(each.queue_name)[0] == self._family.keys.queue]

    def _abandon_wakeup(self) -> None:
        """End a pending wait. The fetch that was sent ahead may be run until the server has closed the connection."""
        with self._sharing:  # an interruption of share() that came later would hit the next wake-up
            self._share_requested = False
        self._stop_listening()
        self._holdings_known = False
        time.sleep(CLOSING_PAUSE_S)

    def _stop_listening(self) -> None:
        self._lane_empty = False
        self._wakeup.disconnect()
        self._credit.release(self._reserved_credit)
        self._reserved_credit = 0


logger = logging.getLogger("switchyard.broker")


def receive(grant: Grant, family: QueueOperations, lane_name: str, broker: RedisBroker) -> HeldMessage | None:
    """Return the message of a grant, or ``None`` when it was scheduled or quarantined.

    Middleware refuses an option in ``before_receive_message``, by raising a ``MiddlewareError``. Nothing that is
    returned has an ``eta``: Dramatiq would keep the message in memory, and lose it when it cannot be enqueued again.
    """
    message: Message[Any] | None = None
    try:
        if grant.body is None:
            raise codec.UnreadableMessage("an id without a body")
        message = codec.decode(grant.body, message_id=str(grant.lease.id, "ascii"), lane=lane_name)
        if not message.options.keys() <= codec.VALIDATED:
            broker.emit_before("receive_message", message)
    except (codec.UnreadableMessage, UnicodeDecodeError, MiddlewareError) as error:
        if not _quarantined(grant, family, lane_name, error):
            broker.report_stale(family, [grant.lease])
        elif message is not None:
            broker.emit_after("quarantine_message", message, error)
        return None
    if "eta" in message.options and _scheduled(message, grant, family, broker):
        return None
    held = HeldMessage(message, grant.lease, family)
    held.crashes, held.cancel_requested, held.cause = grant.crashes, grant.cancel_requested, grant.cause
    held.lapses, held.body = grant.lapses, grant.body
    return held


def _scheduled(message: Message[Any], grant: Grant, family: QueueOperations, broker: RedisBroker) -> bool:
    """Make a due time of a message's ``eta``; return ``False`` when it is due, and still held."""
    eta, _ = message.options.pop("eta"), message.options.pop("delay", None)
    if eta is None:
        return False
    message.options.update(due_at=int(eta), deferred_by="eta")
    delay_ms = family.schedule(grant.lease, body=codec.encode(message, grown=True), due_at_ms=int(eta))
    if delay_ms is None:
        broker.report_stale(family, [grant.lease])
    elif delay_ms:
        broker.emit_after("enqueue", message, delay_ms)
    return delay_ms != 0


def _quarantined(grant: Grant, family: QueueOperations, lane_name: str, error: Exception) -> bool:
    """Move an unreadable message to the quarantine; return ``False`` when its lease is lost."""
    raw = grant.lease.id if grant.body is None else grant.body
    id_ = codec.usable_id(grant.lease.id) or uuid.uuid4().hex  # requeued, it gets this one
    entry = Quarantine.entry(lane_name, raw, str(error), message_id=id_)
    if not family.quarantine(grant.lease, entry.encode(), whole=grant.body, kept_id=id_):
        return False
    logger.error("unreadable message of %d bytes in %s set aside: %s", len(raw), lane_name, error)
    return True
