"""The relay: sends rows of the outbox that their own process did not, in a thread of the history process.

On PostgreSQL every history process relays: each locks the rows that it sends, and the others skip them. On SQLite one
leads. A row is deleted after the broker has its message, so that a kill at any moment leaves it in one of the two.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final

import dramatiq
from django.db import connections, transaction
from django.db.models import Q
from dramatiq.errors import QueueNotFound
from dramatiq.message import Message

from switchyard.broker.clock import TOLERATED_MS, now_ms
from switchyard.broker.errors import BrokerError, BrokerUnavailable, QueueFull, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.stores.dead_lists import rejected
from switchyard.broker.topology import lane_of_name
from switchyard.database import has_table, keep_in_loop, tidy_connections
from switchyard.loggers import get_logger
from switchyard.long_running import LEASE_S, RENEW_S, Leadership, LogThrottle
from switchyard.middleware.outcomes import fingerprint
from switchyard.outbox import rows
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.sends import sends_of
from switchyard.workers.apps import declare_actors

LOGGER: Final = "switchyard.outbox"
log = get_logger(LOGGER)

RELAY: Final = "outbox"
AT_ONCE: Final = 500
# The process that committed sends first; its rows are younger than this while it does.
LEFT_TO_SENDER_MS: Final = 500
POLL_S: Final = 0.5
# Without the outbox there may be rows of the time before.
RARELY_S: Final = 10.0
PAUSE_S: Final = 1.0

# Returns those of some job ids, all sent to one queue, that the broker or the history knows.
WereEnqueued = Callable[[Sequence[str], str], Collection[str]]


class Relay:
    """Sender of what is left in the outbox; ``were_enqueued`` finds what a process sent before it died."""

    def __init__(self, were_enqueued: WereEnqueued) -> None:
        records = facilities().records
        self._broker: Any = dramatiq.get_broker()
        self._leadership = Leadership(records.calls, records.keys, RELAY, lease_s=LEASE_S, renew_s=RENEW_S)
        self._were_enqueued = were_enqueued
        self._throttle = LogThrottle("relay of the outbox", LOGGER)
        sends = sends_of(self._broker)
        self._poll_s = POLL_S if sends is not None and sends.keeps_rows else RARELY_S

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set."""
        declare_actors()
        keep_in_loop()
        try:
            while not stop.is_set():
                stop.wait(self.step())
        finally:
            self._leadership.release()
            connections.close_all()

    def step(self) -> float:
        """Send what is left in every database; return the seconds to wait. Logs failures."""
        tidy_connections()
        failed: Exception | None = None
        for alias in connections:
            try:
                self._relay(alias)
            except Exception as error:  # noqa: BLE001  logged by the throttle; no failure may end the loop
                failed = error
                connections[alias].close()
        if failed is not None:
            self._throttle.failed(failed)
            return PAUSE_S
        self._throttle.succeeded()
        return self._poll_s

    def _relay(self, alias: str) -> None:
        """Send the rows of a database; those of a full queue, or of one whose server takes nothing, stay.

        Raises:
            BrokerError: the server of a queue takes nothing; the rows of the others were sent.
            django.db.DatabaseError: the database does not answer.
        """
        if not has_table(alias, OutboxRow) or not rows.are_left(alias):
            return
        locks = connections[alias].features.has_select_for_update_skip_locked
        round_ = Round(self._broker, alias, self._were_enqueued, locks=locks)
        while (locks or self._leadership.acquire_or_renew()) and round_.goes_on():
            pass
        if round_.away is not None:
            raise round_.away


class Round:
    """One passage through the rows of a database, oldest first.

    Attributes:
        full: Queues without room, whose server takes nothing, or with a row that fails as nobody foresaw: their rows
            are left out from then on.
        away: The first error of a server that takes nothing.
    """

    def __init__(self, broker: Any, alias: str, were_enqueued: WereEnqueued, *, locks: bool) -> None:
        self._broker, self._alias, self._were_enqueued, self._locks = broker, alias, were_enqueued, locks
        self.full: set[str] = set()
        self.away: BrokerError | None = None
        self._done: list[int] = []

    def goes_on(self) -> bool:
        """Send the next rows; return whether there may be more to send."""
        before, self._done = len(self.full), []
        with transaction.atomic(using=self._alias) if self._locks else contextlib.nullcontext():
            found = self._next_rows()
            self._send(found)
            if self._done:
                rows.delete(self._alias, self._done)
        return len(self.full) > before or (len(found) == AT_ONCE and bool(self._done))

    def _next_rows(self) -> list[OutboxRow]:
        now = now_ms()
        # Rows that a clock ahead has written would wait for as long as it was ahead.
        of_age = Q(created_ms__lte=now - LEFT_TO_SENDER_MS) | Q(created_ms__gt=now + TOLERATED_MS)
        due = OutboxRow.objects.using(self._alias).filter(of_age).exclude(queue__in=self.full).order_by("pk")
        return list((due.select_for_update(skip_locked=True) if self._locks else due)[:AT_ONCE])

    def _send(self, found: Sequence[OutboxRow]) -> None:
        behind = rows.behind_others(self._alias, {row.pk: row.order_key for row in found})
        by_queue: dict[str, list[OutboxRow]] = {}
        for row in found:
            by_queue.setdefault(row.queue, []).append(row)
        for queue, together in by_queue.items():
            try:
                if queue not in self.full:
                    self._send_to(queue, together, behind)
            except BrokerError as error:
                # A server that is away is asked once, one that refuses a key may take others.
                same = isinstance(error, BrokerUnavailable) and self._place_of(queue)
                self.full |= {other for other in by_queue if other == queue or same == self._place_of(other)}
                self.away = self.away or error

    def _place_of(self, queue: str) -> str:
        records = facilities(self._broker).records
        return records.calls.place_of(records.keys.queue(lane_of_name(queue)[0]).bodies)

    def _send_to(self, queue: str, found: Sequence[OutboxRow], behind: Collection[int]) -> None:
        known = self._were_enqueued([row.job_id for row in found], lane_of_name(queue)[0])
        self._done += [row.pk for row in found if row.job_id in known]
        ready: list[tuple[OutboxRow, Message[Any]]] = []
        for row in found:
            if row.job_id in known or row.pk in behind:
                continue
            try:
                ready.append((row, rows.message_of(row)))
            except codec.UnreadableMessage as error:
                self._bury(row, Message(queue, "unknown", (), {}, {}, row.job_id, row.created_ms), error)
        now = now_ms()
        for delay_ms, together in groupby(ready, key=lambda one: max((one[0].due_ms or 0) - now, 0)):
            if queue not in self.full:
                self._put(list(together), delay_ms or None)

    def _put(self, together: Sequence[tuple[OutboxRow, Message[Any]]], delay_ms: int | None) -> None:
        """Send rows of one queue in order; where they are refused, halves of them, down to the one that is."""
        try:
            self._broker.put([message for _, message in together], delay=delay_ms)
        except BrokerError:
            raise
        except Exception as error:
            middle, queue = len(together) // 2, together[0][0].queue
            if middle:
                self._put(together[:middle], delay_ms)
                if queue not in self.full:
                    self._put(together[middle:], delay_ms)
            elif isinstance(error, (SwitchyardError, QueueNotFound)) and not isinstance(error, QueueFull):
                self._bury(*together[0], error)
            else:
                self.full.add(queue)
                if not isinstance(error, QueueFull):
                    log.error(
                        "a row of the outbox cannot be sent, its queue waits", row=together[0][0].pk, exc_info=error
                    )
        else:
            self._done += [row.pk for row, _ in together]

    def _bury(self, row: OutboxRow, message: Message[Any], error: Exception) -> None:
        """Put a message that the broker refuses for good into a dead list, that of the first queue if it has none."""
        own = facilities(self._broker)
        queue = lane_of_name(row.queue)[0]
        declared = [known.name for known in own.yard.queues]
        letter = replace(
            rejected(message, queue if queue in declared else declared[0], error),
            error=f"the outbox could not send it: {error}",
            enqueued_at=row.created_ms,
            fingerprint=fingerprint(message.actor_name, error),
        )
        own.transport.restore(letter)
        log.error(
            "a message of the outbox is refused for good, it is a dead letter", job_id=row.job_id, error=str(error)
        )
        self._done.append(row.pk)
