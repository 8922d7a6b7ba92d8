"""Operators' acts on a queue, each written to the audit log before it begins.

Every function may raise ``switchyard.broker.errors.BrokerError``. Pausing and resuming work without the database; their
rows are in the log then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime

import dramatiq
from dramatiq.middleware import CurrentMessage

from switchyard.audit.services import Who, act
from switchyard.broker.admin.purge import Purge, PutBack, Relocated, purges, relocate, set_aside, undo
from switchyard.broker.errors import ActRefused, SwitchyardError
from switchyard.broker.keys import LANES, Lane
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.conf import declared_yard
from switchyard.console.formatting import unusable_end


class ForeignBroker(SwitchyardError):
    """The broker of this deployment has no such act."""

    def __init__(self, broker: str) -> None:
        super().__init__(f"a {broker} can neither be browsed nor paused; use the server's own tools")


LONGEST_REASON = 500
LEFT_OUT = "Left out, because messages with their ids were sent since: {:,}."


def family_of(queue: str) -> QueueOperations:
    """Return the operations of a queue of the yard, or ``UnknownQueue``; also by the name of one of its lanes.

    Raises:
        ForeignBroker: the broker is not Switchyard's own.
    """
    name = declared_yard().queue_of(queue).name
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        raise ForeignBroker(type(broker).__name__)
    return broker.lane(name)[0]


def pause(queue: str, *, who: Who, reason: str = "", until: datetime | None = None) -> bool:
    """Pause a queue; ``False`` when it was paused already and stays as it was.

    Args:
        until: When it resumes by itself. With it, or with a reason, an earlier pause is changed.

    Raises:
        ActRefused: ``until`` is over by the server's clock.
    """
    family = family_of(queue)
    until_ms = 0 if until is None else int(until.timestamp() * 1000)
    detail = {"until": until.isoformat()} if until is not None else {}
    with act("queue.pause", who=who, target=family.keys.queue, reason=reason, detail=detail, essential=False) as entry:
        try:
            changed = administration.pause(family, until_ms=until_ms, by=who.name, reason=reason[:LONGEST_REASON])
        except ValueError as error:
            raise unusable_end(until.isoformat() if until else "", str(error)) from error
        entry.count = int(changed)
        return changed


def pause_queue(until: datetime, reason: str) -> bool:
    """Pause the queue of the job that calls this, retries included, until a time; see :func:`pause`.

    The job itself runs on. Raises ``LookupError`` outside of a worker.
    """
    message = CurrentMessage.get_current_message()
    if message is None:
        raise LookupError("pause_queue: no job runs here; call it in an actor, or pause(queue, who=...)")
    return pause(message.queue_name, who=Who(f"job {message.message_id}", "command"), reason=reason, until=until)


def resume(queue: str, *, who: Who, reason: str = "") -> bool:
    """Resume a queue; ``False`` when it was not paused."""
    family = family_of(queue)
    with act("queue.resume", who=who, target=family.keys.queue, reason=reason, essential=False) as entry:
        changed = administration.resume(family)
        entry.count = int(changed)
        return changed


def purge(queue: str, *, who: Who, reason: str = "") -> Purge | None:
    """Set aside every message of a queue that waits or is scheduled, its retries included; ``None`` for nothing.

    The leading scheduler drops them for good after a minute; until then :func:`undo_purge` puts them back. Jobs that
    run and dead letters are not touched.
    """
    family = family_of(queue)
    id_ = secrets.token_hex(6)
    with act("queue.purge", who=who, target=family.keys.queue, reason=reason, detail={"purge": id_}) as entry:
        entry.count = set_aside(family, id_, by=who.name, reason=reason[:LONGEST_REASON])
        return next((found for found in purges(family) if found.id == id_), None)


def undo_purge(queue: str, purge_id: str, *, who: Who) -> PutBack:
    """Put back what a purge set aside, before what was sent since; leave out what was sent again with the same id.

    Raises:
        ActRefused: the messages are dropped, or being dropped.
    """
    family = family_of(queue)
    detail = {"purge": purge_id}
    with act("queue.purge_undo", who=who, target=family.keys.queue, detail=detail) as entry:
        entry.count = 0
        try:
            undone = undo(family, purge_id)
        except LookupError as error:
            fact = "its messages cannot be put back; a purge can be undone for a minute"
            raise ActRefused(str(error), fact) from error
        entry.count = undone.put_back
        if undone.left_out:
            entry.detail = {**detail, "left_out": undone.left_out}
        return undone


def relocate_actor(
    actor: str, source: str, target: str, *, who: Who, reason: str = ""
) -> Iterator[tuple[Lane, Relocated]]:
    """Move an actor's waiting messages to another queue; yield lane and progress after each batch.

    Its new messages go there only when its ``queue_name`` says so.

    Raises:
        ActRefused: both queues are one.
    """
    old, new = family_of(source), family_of(target)
    if old.keys.queue == new.keys.queue:
        raise ActRefused("relocate", f"{source!r} is both the old and the new queue; name another", by_argument=True)
    detail = {"actor": actor, "to": new.keys.queue}
    queues = old.keys.queue, new.keys.queue
    with act("queue.relocate", who=who, target=queues[0], reason=reason, detail=detail, queues=queues) as entry:
        entry.count = 0
        for lane in LANES:
            moved = entry.count
            for step in relocate(old, new, actor=actor, lane=lane):
                entry.count = moved + step.moved
                yield lane, step
