"""Batches for the code that makes them: a name for many jobs, members, progress, and callbacks at their end.

::

    with batch("import", on_success=publish.message(42), on_failure=warn.message(42)) as jobs:
        for row in rows:
            jobs.add(import_row.message(row))

Inside of a member ``current_batch().add(...)`` adds another one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import dramatiq
import msgspec
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage

from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities
from switchyard.broker.queue.arguments import has_steps, in_json
from switchyard.broker.queue.codec import require_message
from switchyard.broker.stores.batches import (
    AT_ONCE,
    FIRST_LOOK_MS,
    Batches,
    BatchFacts,
    BatchRecord,
    batch_of,
    callback_id,
    member_id,
    new_batch_id,
)
from switchyard.middleware.envelope import usable_tags

LONGEST_NAME: Final = 100
UNKNOWN: Final = "no batch has this id, or it ended over seven days ago; make a new one"
OVER: Final = "it is cancelled, or has succeeded, and takes no more members; make a new one"


class Batch:
    """A batch, by its id."""

    def __init__(self, batch_id: str) -> None:
        self.id = batch_id

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def add(self, *messages: Message[Any]) -> list[Message[Any]]:
        """Send messages as members, and return them with their ids.

        Inside of a transaction they wait for its commit as every send does; they are members at once. Inside of a job
        their ids follow from the job, actor and arguments: an attempt that is repeated adds none twice.

        Raises:
            ActRefused: the batch is cancelled, has succeeded, has expired, or cannot be counted on this broker; or a
                message has steps that follow it, or was sent already.
            BrokerUnavailable, QueueFull: as of ``send``. What was not sent counts as failed after ten minutes.
        """
        members = self._members(messages)
        batches().look_on(self.id, FIRST_LOOK_MS)
        self._send(members)
        return members

    def progress(self) -> BatchRecord:
        """Return the figures of the batch, of at most a second ago; ``ActRefused`` where it is unknown or expired."""
        [found] = batches().read([self.id])
        if found is None:
            raise ActRefused(f"batch {self.id}", UNKNOWN)
        return found

    def _members(self, messages: Sequence[Message[Any]]) -> list[Message[Any]]:
        for message in messages:
            _require_unsent(self.id, message)
        return [message.copy(message_id=member_id(self.id, self._seed(message))) for message in messages]

    def _seed(self, message: Message[Any]) -> str:
        if has_steps(message.options):
            raise ActRefused(
                f"batch {self.id}", "a pipeline or group is not a member; add the next step from the member"
            )
        sender: Any = CurrentMessage.get_current_message()
        if sender is None:
            return str(message.message_id)
        sent = in_json(message, dramatiq.get_broker().actors)
        call = json.dumps([sent.queue_name, sent.actor_name, sent.args, sent.kwargs, sent.options], default=repr)
        return _numbered(sender, call)

    def _send(
        self,
        members: Sequence[Message[Any]],
        *,
        facts: BatchFacts | None = None,
        callbacks: Mapping[str, bytes] | None = None,
        close: bool = False,
    ) -> None:
        """Add members, then perhaps close the batch, then send them: none is sent that is not counted."""
        store, queue_of = batches(), facilities().yard.queue_of
        going: list[Message[Any]] = []
        for start in range(0, max(len(members), 1), AT_ONCE):
            chunk = members[start : start + AT_ONCE]
            named = [(message.message_id, queue_of(message.queue_name).name) for message in chunk]
            answer = store.add(self.id, named, facts=facts, callbacks=callbacks)
            if isinstance(answer, str):
                raise ActRefused(f"batch {self.id}", OVER if answer == "over" else UNKNOWN)
            going += [message for message, is_open in zip(chunk, answer, strict=True) if is_open]
        if close:
            store.note(self.id, "closed")
            store.look_again(self.id, 0 if not members else FIRST_LOOK_MS)
        dramatiq.get_broker().enqueue_many(going)  # type: ignore[attr-defined]


class NewBatch(Batch):
    """A batch that is being made: as its ``with`` block ends it is closed, and what is left is sent.

    Members are sent 500 at a time, the last ones at the end. A block that raises before the first are sent leaves
    nothing; after that the batch cannot succeed any more.
    """

    def __init__(self, batch_id: str, facts: BatchFacts, callbacks: Mapping[str, Message[Any]]) -> None:
        super().__init__(batch_id)
        self.callbacks = callbacks
        self._facts = facts
        self._left: list[Message[Any]] = []
        self._is_made = False

    def __enter__(self) -> Self:
        dramatiq.get_broker().emit_before("make_batch", self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._make(self._left, close=True)
            elif self._is_made:
                batches().note(self.id, "abandoned", "closed")
                batches().look_again(self.id, FIRST_LOOK_MS)
        finally:
            dramatiq.get_broker().emit_after("make_batch", self)

    def add(self, *messages: Message[Any]) -> list[Message[Any]]:
        """Add members, which are sent 500 at a time or as the block ends; return them with their ids.

        Raises:
            ActRefused: a message has steps that follow it, or was sent already.
            BrokerUnavailable, QueueFull: as of ``send``. What was not sent counts as failed after ten minutes.
        """
        members = self._members(messages)
        self._left += members
        while len(self._left) >= AT_ONCE:
            going, self._left = self._left[:AT_ONCE], self._left[AT_ONCE:]
            self._make(going)
        return members

    def _make(self, members: Sequence[Message[Any]], *, close: bool = False) -> None:
        if not self._is_made:
            batches().make(self.id)
            self._is_made = True
        callbacks = {name: msgspec.json.encode(message.asdict()) for name, message in self.callbacks.items()}
        self._send(members, facts=self._facts, callbacks=callbacks, close=close)


def batch(
    name: str,
    *,
    tags: Sequence[str] = (),
    on_success: Message[Any] | None = None,
    on_failure: Message[Any] | None = None,
    on_complete: Message[Any] | None = None,
) -> NewBatch:
    """Return a new batch, to be used in a ``with`` block.

    Inside of a job its id follows from the job and the name: an attempt that is repeated goes on with the same batch.

    Args:
        name: Of 1 to 100 printable characters, for people.
        tags: As those of a message.
        on_success: Sent once every member is done; also after failed ones were requeued.
        on_failure: Sent once the first member has failed.
        on_complete: Sent once every member has ended, in whatever way.

    Raises:
        ActRefused: jobs cannot be counted on this broker, or a callback was sent already.
        ValueError: the name or a tag cannot be used.
    """
    if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise ValueError(f"batch: name is {name!r:.120}; write 1 to {LONGEST_NAME} printable characters")
    if remedy := usable_tags(tags):
        raise ValueError(f"batch {name}: tags are {tags!r:.200}; {remedy}")
    batches()
    sender: Any = CurrentMessage.get_current_message()
    life = "" if sender is None else f" {sender.options.get('generation', 0)}"
    batch_id = new_batch_id("" if sender is None else _numbered(sender, f"batch {name}{life}"))
    given = {"on_success": on_success, "on_failure": on_failure, "on_complete": on_complete}
    callbacks = {key: _stored(batch_id, key, message) for key, message in given.items() if message is not None}
    facts = BatchFacts(name, tuple(tags), "" if sender is None else sender.message_id)
    return NewBatch(batch_id, facts, callbacks)


def current_batch() -> Batch | None:
    """Return the batch whose member, or whose callback, runs this code; ``None`` outside of one."""
    message = CurrentMessage.get_current_message()
    found = "" if message is None else batch_of(message.message_id)
    return Batch(found) if found else None


def batches() -> Batches:
    """Return the store of batches; ``ActRefused`` where the yard's queues cannot count the ends of jobs."""
    found = facilities().batches
    if found is None:
        raise ActRefused("batch", "the ends of jobs are counted on Redis and Valkey only; use dramatiq.group")
    return found


def _require_unsent(batch_id: str, message: Message[Any]) -> None:
    """Refuse what is no message, and what ``send`` returned: it would run once by itself, and again in the batch."""
    require_message(message)
    if "enqueued_at" in message.options:
        fact = f"{message.actor_name} was sent already, and would run twice"
        raise ActRefused(f"batch {batch_id}", f"{fact}; write {message.actor_name}.message(...), which sends nothing")


def _stored(batch_id: str, name: str, message: Message[Any]) -> Message[Any]:
    """Return a callback as it is kept, under an id that follows from its batch."""
    _require_unsent(batch_id, message)
    return in_json(message.copy(message_id=callback_id(batch_id, name)), dramatiq.get_broker().actors)


def _numbered(sender: Any, call: str) -> str:
    """Return a seed of what a job sends, the same in each of its runs: of equal calls the first, the second …"""
    digest = hashlib.blake2b(call.encode(), digest_size=16).hexdigest()
    counts: Counter[str] | None = getattr(sender, "batch_calls", None)
    if counts is None:
        counts = sender.batch_calls = Counter()
    counts[digest] += 1
    return f"{sender.message_id} {counts[digest]} {digest}"
