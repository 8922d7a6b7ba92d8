"""Sends inside of a transaction: kept until its commit, then sent in one batch.

The broker asks :class:`CommitSends` at each send, after the hooks that may refuse it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from dramatiq.broker import Broker
from dramatiq.message import Message

from switchyard.api.request_jobs import current_request
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable, SwitchyardError
from switchyard.broker.queue import codec
from switchyard.broker.queue.administration import follows_a_job
from switchyard.broker.redis.calls import BUDGET_S
from switchyard.database import has_table, in_transaction, open_transaction
from switchyard.loggers import get_logger

log = get_logger("switchyard.outbox")

# A request does not wait for a broker that is away: its rows stay, and the relay sends them. After a failure this
# process leaves all of them to the relay for a while.
QUICK_S: Final = 0.3
LEFT_TO_RELAY_S: Final = 5.0


class Waiting(NamedTuple):
    """A message that waits for a commit: the time from which it may start, and its row in the outbox."""

    message: Message[Any]
    due_ms: int | None
    row: int | None


class CommitSends:
    """Keeper of what a broker is asked to enqueue inside of transactions.

    Args:
        broker: One of this library's.
        waits: Sends wait for the commit unless the option ``on_commit`` of a message or its actor says otherwise.
        keeps_rows: What waits is a row of the transaction as well.
    """

    def __init__(self, broker: Any, *, waits: bool, keeps_rows: bool) -> None:
        self._broker, self._waits, self.keeps_rows = broker, waits, keeps_rows
        self._left_until_s = 0.0

    def __call__(self, messages: Sequence[Message[Any]], delay: int | None) -> Sequence[Message[Any]]:
        """Keep the messages that wait for a commit, and return the others.

        Raises:
            PayloadTooLarge, UnencodablePayload, InvalidMessageId: a message cannot be sent.
            QueueFull: its queue is full, or with rows the outbox.
            BrokerUnavailable: without rows, no broker answered.
            django.db.DatabaseError: a row cannot be written.
        """
        waiting: dict[str, list[Message[Any]]] = {}
        for message in messages:
            alias = self.transaction_of(message)
            message.options.pop("on_commit", None)
            if alias:
                waiting.setdefault(alias, []).append(message)
        if not waiting:
            return messages
        for alias, found in waiting.items():
            self._keep(alias, found, delay)
        kept = {message.message_id for found in waiting.values() for message in found}
        return [message for message in messages if message.message_id not in kept]

    def transaction_of(self, message: Message[Any]) -> str:
        """Return the alias of the database whose commit a message would wait for, "" for none."""
        wish = self._wish(message)
        if not wish or follows_a_job():  # of a worker's hook, where putting it off could lose it
            return ""
        if isinstance(wish, str):
            return wish if in_transaction(connections[wish]) else ""
        return open_transaction()

    def own_transaction_of(self, message: Message[Any]) -> str:
        """Return the database in which a row of a transaction of its own would keep a message, "" for none."""
        if not self.keeps_rows or not (wish := self._wish(message)):
            return ""
        alias = wish if isinstance(wish, str) else DEFAULT_DB_ALIAS
        return "" if connections[alias].in_atomic_block else alias

    def leave_to_relay(self) -> None:
        """Send no rows from this process for a while: its broker is away."""
        self._left_until_s = time.monotonic() + LEFT_TO_RELAY_S

    def _wish(self, message: Message[Any]) -> bool | str:
        """Return whether a message waits for a commit, or for that of which database. One that is moved never does."""
        options = message.options
        if "attempts" in options or "generation" in options:
            return False
        wish = options.get("on_commit")
        if wish is None:
            actor = self._broker.actors.get(message.actor_name)
            wish = None if actor is None else actor.options.get("on_commit")
        found: bool | str = self._waits if wish is None else wish
        return found

    def _keep(self, alias: str, messages: Sequence[Message[Any]], delay: int | None) -> None:
        from switchyard.outbox import models, rows  # models are not loaded yet when the broker is built

        due_ms = None if delay is None else now_ms() + delay
        bodies = [codec.entry_of(message, self._broker.actors).body for message in messages]
        ids: Sequence[int | None] = [None] * len(messages)
        if self.keeps_rows and has_table(alias, models.OutboxRow):
            ids = rows.add(alias, messages, bodies, due_ms=due_ms, actors=self._broker.actors)
        else:
            for queue_name in {message.queue_name for message in messages}:
                self._broker.require_room(queue_name)
        batch = self._batch_of(alias)
        batch.waiting += [Waiting(message, due_ms, row) for message, row in zip(messages, ids, strict=True)]

    def _batch_of(self, alias: str) -> CommitBatch:
        """Return the batch that the latest send registered, if a rollback would drop both together; else a new one.

        A batch is joined only while it is the last callback: callbacks run in the order in which they were registered.
        """
        connection: Any = connections[alias]
        if connection.run_on_commit:
            savepoints, callback, _ = connection.run_on_commit[-1]
            if (
                isinstance(callback, CommitBatch)
                and callback.sends is self
                and savepoints == set(connection.savepoint_ids)
            ):
                return callback
        batch = CommitBatch(self, alias)
        transaction.on_commit(batch, using=alias)
        return batch

    def flush(self, alias: str, waiting: Sequence[Waiting]) -> None:
        """Send what a commit released.

        Raises:
            SwitchyardError: the first error of a message without a row; the others were sent nevertheless.
        """
        sent: list[int] = []
        refused: Exception | None = None
        for (_, _, has_row), group in groupby(
            waiting, key=lambda each: (each.message.queue_name, each.due_ms, each.row is not None)
        ):
            together = list(group)
            if has_row:
                sent += self._send_rows(alias, together)
                continue
            try:
                self._send(together, budget_s=BUDGET_S)
            except SwitchyardError as error:
                refused = refused or error
                if (request := current_request()) is not None:
                    for each in together:
                        request.note_failure(each.message.message_id, getattr(error, "outcome", ""))
        if sent:
            from switchyard.outbox import rows

            try:
                rows.delete(alias, sent)
            except Exception as error:  # noqa: BLE001  the commit stands, and the relay finds that the broker has them
                log.warning("rows of the outbox not deleted, the relay will", rows=len(sent), error=str(error))
        if refused is not None:
            raise refused

    def _send_rows(self, alias: str, waiting: Sequence[Waiting]) -> list[int]:
        """Send messages that have rows; return the rows to delete. What the broker does not take stays."""
        from switchyard.outbox import rows

        actors = self._broker.actors
        keys = {
            each.row: rows.order_key(each.message, actors.get(each.message.actor_name)) for each in waiting if each.row
        }
        held = rows.behind_others(alias, keys)
        ready = [each for each in waiting if each.row not in held]
        if time.monotonic() >= self._left_until_s and ready:
            try:
                self._send(ready, budget_s=QUICK_S)
            except SwitchyardError as error:
                if isinstance(error, BrokerUnavailable):
                    self.leave_to_relay()
                log.warning("not sent at the commit, the outbox has it", messages=len(ready), error=str(error))
            else:
                _note_enqueued(each.message for each in waiting if each.row in held)
                return [each.row for each in ready if each.row is not None]
        _note_enqueued(each.message for each in waiting)
        return []

    def _send(self, waiting: Sequence[Waiting], *, budget_s: float) -> None:
        messages, due_ms = [each.message for each in waiting], waiting[0].due_ms
        delay = None if due_ms is None else max(due_ms - now_ms(), 0)
        _note_enqueued(self._broker.put(messages, delay=delay, budget_s=budget_s))


class CommitBatch:
    """Callback of a commit: sends messages in their order."""

    def __init__(self, sends: CommitSends, alias: str) -> None:
        self.sends, self.alias = sends, alias
        self.waiting: list[Waiting] = []

    def __call__(self) -> None:
        self.sends.flush(self.alias, self.waiting)


def sends_of(broker: Broker) -> CommitSends | None:
    """Return the keeper of a broker; ``None`` where it is another library's."""
    found = getattr(broker, "postpone", None)
    return found if isinstance(found, CommitSends) else None


def _note_enqueued(messages: Iterable[Message[Any]]) -> None:
    if (request := current_request()) is not None:
        for message in messages:
            request.job_ids.append(message.message_id)
