"""Consumer of one lane: leases messages, hands them to Dramatiq's worker, and acknowledges them in batches."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable

from dramatiq.broker import Consumer as DramatiqConsumer
from dramatiq.broker import MessageProxy

from broker.consuming_broker import ConsumingBroker
from broker.errors import BrokerError, BrokerUnavailable, LeaseLost
from broker.held_message import HeldMessage
from broker.queue.operations import AT_ONCE, QueueOperations, lane_of
from broker.queue.results import Fetched, Lease, fetched
from broker.queue.unroutable import UnroutableLane
from broker.received import readable
from broker.redis.scripts import script
from broker.worker.cancellations import POLL_CANCELLATIONS_S
from broker.worker.wakeup import Wakeup

logger = logging.getLogger("switchyard.broker")

DRAINING_PAUSE_S = 0.05
# Acknowledgements wait for the next fetch, but no longer than this where there is no room for one.
ACKS_WAIT_S = 0.02
LOOK_FOR_PARKED_S = 2.0


class Consumer(DramatiqConsumer):
    """Reads one lane for one owner.

    What was worked off is acknowledged with the next fetch. While there is nothing to fetch, the thread that worked it
    off acknowledges it at once.
    """

    def __init__(self, broker: ConsumingBroker, family: QueueOperations, owner: str, *, timeout_ms: int) -> None:
        self._broker = broker
        self._family = family
        self._owner = owner
        self._lane = lane_of(owner)
        self._lane_name = family.keys.lane_name(self._lane)
        self._timeout_s = timeout_ms / 1000
        self.closed = False
        self._budget = broker.budget
        self._budget.consumers += 1
        self._acks = broker.acks_of(family, owner)
        self._requests = itertools.count(time.time_ns())
        self._request = 0
        self._ready: deque[HeldMessage] = deque()
        self._doorbell = Wakeup(family.calls, family.keys.bell(self._lane))
        self._reserved = 0
        self._must_share = False
        self._settled = False
        self._listening = False
        self._empty = False
        self._due_at_s: float | None = None
        self._parked = UnroutableLane(family, self._lane)
        self._look_at_s = 0.0
        self._calls: list[str] = []

    def __next__(self) -> HeldMessage | None:
        """Return the next message, or ``None`` when none came within the timeout.

        Raises:
            BrokerError: the server is away or refused a fetch, or this owner lost its lease (``LeaseLost``). Each is a
                ``ConnectionClosed``: Dramatiq asks for another consumer.
        """
        give_up_s = time.monotonic() + self._timeout_s
        try:
            while True:
                if self._ready:
                    return self._hand_out()
                self._broker.poll_cancellations()
                if self._broker.draining:
                    self._drain()
                    return None
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._work(min(left_s, POLL_CANCELLATIONS_S) if self._broker.in_flight else left_s)
        except BrokerError:
            self._stop_listening()
            if self._broker.draining:
                self._settled = False  # no other consumer follows this one, and a fetch may have brought something
                return None
            raise

    def ack(self, message: MessageProxy) -> None:
        """Forget a message that was worked off. It does not fail: what cannot be sent now is sent later.

        Middleware is told by ``before_send_acks``, with the message, if that may take a while.
        """
        assert isinstance(message, HeldMessage)  # noqa: S101  what a worker acknowledges came from a consumer of ours
        if not message.moved:
            self._acks.add(message.lease)
        self._let_go(message)
        if self._listening:
            self._broker.emit_before("send_acks", message)
            self._acks.send()

    def nack(self, message: MessageProxy) -> None:
        """Make a rejected message a dead letter, unless a middleware did so."""
        assert isinstance(message, HeldMessage)  # noqa: S101  see ack
        if not message.moved:
            self._broker.moves.dead_letter(message)
        self._let_go(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back to the head of their lane, in their order."""
        held = [message for message in messages if isinstance(message, HeldMessage) and not message.moved]
        self._family.release(self._owner, [message.lease for message in held])
        for message in held:
            self._let_go(message)

    def close(self) -> None:
        """Stop listening, send what is left to be acknowledged, give back what was not handed out."""
        if self.closed:  # Dramatiq closes it again when there is no other one yet
            return
        self.closed = True
        self._budget.consumers -= 1
        self._stop_listening()
        self._budget.give(len(self._ready))
        self._ready.clear()
        self._acks.send()
        self._settle()

    def share(self) -> None:
        """Release the credit that is reserved while this consumer listens: another lane is consumed as well now.

        Called by other threads. The listening thread is interrupted locally: a token on the wake-up list might wake a
        consumer of another process instead, and the credit would stay reserved for up to 2 s.
        """
        self._must_share = True
        if self._reserved:
            self._doorbell.interrupt()

    def interrupt(self) -> None:
        """Make a consumer that listens in another thread look up."""
        self._doorbell.interrupt()

    def _work(self, timeout_s: float) -> None:
        """Take one step: settle what an earlier consumer left, fetch or adopt, or listen for the bell."""
        if self._must_share:
            self._must_share = False
            if self._reserved:
                self._stop_listening()
                self._settled = False  # the fetch that was sent ahead may have brought something
        if time.monotonic() >= self._look_at_s:
            self._look_for_parked()
        if not self._settled:
            self._settle()
            self._settled = True
        timeout_s = self._until_due(timeout_s)
        if self._doorbell.asked or (self._empty and not self._calls):
            try:
                self._listen(timeout_s) if self._doorbell.asked else self._ask(timeout_s)
            except BrokerUnavailable:
                if not self._must_share:  # otherwise :meth:`share` closed the connection
                    raise
        elif room := self._budget.take(self, timeout_s=min(timeout_s, ACKS_WAIT_S) if self._acks.some else timeout_s):
            if self._calls:
                self._adopt(room)
            else:
                self._fetch(room, next(self._requests))
        else:
            self._acks.send()

    def _drain(self) -> None:
        """Take nothing more, give back what a fetch that was sent ahead brought meanwhile, acknowledge what ends."""
        if self._doorbell.asked:
            self._settled = False
        self._stop_listening()
        time.sleep(DRAINING_PAUSE_S)  # the server sees the closed connection before it is asked what we hold
        if not self._settled:
            self._settle()
            self._settled = True
        self._acks.send()

    def _hand_out(self) -> HeldMessage:
        message = self._ready.popleft()
        self._broker.in_flight[message.message_id] = message
        return message

    def _let_go(self, message: HeldMessage) -> None:
        if self._broker.in_flight.get(message.message_id) is message:
            self._broker.in_flight.pop(message.message_id, None)
        if message.has_credit:
            message.has_credit = False
            self._budget.work_off()

    def _fetch(self, room: int, request: int) -> None:
        acked: list[Lease] = []
        try:
            acked = self._acks.take()
            found = self._family.fetch(self._owner, min(room, AT_ONCE), request=request, acked=acked)
        except BaseException:
            self._acks.give_back(acked)
            self._budget.give(room)
            raise
        self._receive(found, room)

    def _look_for_parked(self) -> None:
        """Look whether something is parked that our actors can run, and if so stop listening, to adopt it."""
        self._look_at_s = time.monotonic() + LOOK_FOR_PARKED_S
        self._calls = []
        try:
            known = [call for call in self._parked.calls() if self._broker.knows(call)]
            for call in known:
                self._parked.adopt(self._owner, call, ())  # there may be no room for a while, but it is known
        except BrokerError as error:
            logger.warning("%s: what is parked cannot be looked at now: %s", self._lane_name, error)
            return
        self._calls = known
        if self._calls and self._doorbell.asked:
            self._stop_listening()
            self._settled = False  # the fetch that was sent ahead may have brought something

    def _adopt(self, room: int) -> None:
        """Take parked messages of one call."""
        try:
            self._acks.send()
            ours = {*list(self._broker.in_flight), *(held.message_id for held in self._ready)}
            found = self._parked.ids(self._calls[0], min(room + len(ours), AT_ONCE))
            ids = [id_ for id_ in found if str(id_, "utf-8", "replace") not in ours][:room]
            adopted = self._parked.adopt(self._owner, self._calls[0], ids)
        except BaseException:
            self._budget.give(room)
            raise
        if len(adopted.grants) < room:
            self._calls.pop(0)
        self._keep(adopted, room)

    def _ask(self, timeout_s: float) -> None:
        """Listen for the bell. The only consumer of a worker keeps its room for it, and asks for the fetch as well."""
        if self._budget.consumers > 1:
            self._doorbell.ask()
        elif room := self._budget.take(self, timeout_s=timeout_s):
            self._reserved = room
            if self._budget.consumers > 1:  # since a moment; it may not have seen that we kept the room
                self._reserved = 0
                self._budget.give(room)
                return
            self._request = next(self._requests)
            call = self._family.fetch_call(self._owner, min(room, AT_ONCE), request=self._request)
            self._doorbell.ask(script("fetch"), *call)
        else:
            return
        self._listening = True
        self._acks.send()

    def _listen(self, timeout_s: float) -> None:
        heard = self._doorbell.hear(timeout_s)
        if heard is None:
            return
        self._listening = False
        room, self._reserved = self._reserved, 0
        if heard.answer is not None:
            self._receive(fetched(self._owner, heard.answer), room)
        elif room:
            self._fetch(room, self._request)
        elif room := self._budget.take(self, timeout_s=0):
            self._fetch(room, next(self._requests))
        else:
            self._empty = False
            if heard.rang:
                self._family.ring(self._lane)  # for another process, that has room

    def _until_due(self, timeout_s: float) -> float:
        """Return how long to wait, at most until the next message is due; when it is, ring for whoever listens.

        Blocking reads end by themselves up to 100 ms late; and we may have no room for it, but others have.
        """
        if self._due_at_s is None:
            return timeout_s
        until_due_s = self._due_at_s - time.monotonic()
        if until_due_s > 0:
            return min(timeout_s, until_due_s)
        self._due_at_s = None
        self._family.ring(self._lane)
        return timeout_s

    def _receive(self, found: Fetched, room: int) -> None:
        self._broker.report_stale(self._family, found.stale)
        self._due_at_s = None
        if found.next_due_ms:
            self._due_at_s = time.monotonic() + found.next_due_ms / 1000
        more_is_due = found.next_due_ms == 0 and found.state == "ok"
        self._empty = not more_is_due and not found.left and len(found.grants) < room
        self._keep(found, room)

    def _keep(self, found: Fetched, room: int) -> None:
        """Make ready what was leased, and give back the room that is left."""
        if found.state == "gone":
            self._budget.give(room)
            self._broker.lost_lease(self._owner)
            raise LeaseLost(self._owner)
        try:
            for grant in found.grants:
                if (message := readable(grant, self._family, self._lane_name)) is not None:
                    self._ready.append(message)
                    room -= 1
        finally:
            self._budget.give(room)

    def _settle(self) -> None:
        self._acks.release_unknown([held.lease for held in list(self._broker.in_flight.values())])

    def _stop_listening(self) -> None:
        self._listening = False
        self._empty = False
        self._doorbell.disconnect()
        self._budget.give(self._reserved)
        self._reserved = 0
