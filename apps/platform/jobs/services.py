"""Send work, follow it, stop it. A job is a message: its id is the message's."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage

from apps.platform.jobs.availability import answered
from broker.admin.cancel import cancel
from broker.errors import BrokerUnavailable
from broker.interface import facilities
from middleware.errors import Cancelled

logger = logging.getLogger(__name__)


def submit(
    actor: Actor[Any, Any],
    *,
    owner: str = "",
    delay_ms: int | None = None,
    kwargs: dict[str, Any],
) -> str:
    """Enqueue work now and return its job id: that of an unfinished one, when it holds the same unique key.

    Inside a transaction use ``enqueue_on_commit``: a worker may start before the commit.

    Args:
        owner: ``Token.owner_key`` of whoever may see the job through the API; empty: operators only.
        delay_ms: Start no sooner than in so many milliseconds.
        kwargs: The actor's arguments, checked against its signature here.

    Raises:
        BrokerUnavailable: the broker did not answer. The job may have been sent nevertheless.
        QueueFull: the queue holds as many as it may.
        ArgumentMismatch: the arguments do not fit the actor.
    """
    message = _message(actor, owner, kwargs)
    return _enqueue(actor.broker, message, delay_ms)


def enqueue_on_commit(
    actor: Actor[Any, Any],
    *,
    owner: str = "",
    using: str = "default",
    kwargs: dict[str, Any],
) -> str:
    """Enqueue work when the current transaction commits, never when it rolls back; return its job id at once.

    Outside a transaction it is enqueued now. If the broker is down at the commit, the commit stands, the job is not
    sent, and ``BrokerUnavailable`` comes out of the transaction's block; so does ``QueueFull``. A job that is not sent
    because an unfinished one holds its unique key is unknown under the id returned here.

    Args:
        owner: As for ``submit``.
        using: Alias of the database whose transaction is meant.
        kwargs: The actor's arguments, checked against its signature here.

    Raises:
        ArgumentMismatch: the arguments do not fit the actor.
        BrokerUnavailable, QueueFull: see above.
    """
    message = _message(actor, owner, kwargs)
    transaction.on_commit(lambda: _enqueue(actor.broker, message, None), using=using)
    return message.message_id


def current_job_id() -> str | None:
    """Return the id of the job this code runs in, or ``None`` outside of a worker."""
    message = CurrentMessage.get_current_message()
    return None if message is None else message.message_id


def report_progress(done: int, total: int, note: str = "") -> None:
    """Tell how far the current job is, and stop here if it was cancelled. Outside of a worker nothing happens.

    Call it between steps, where stopping leaves nothing half done. A broker that is away costs the report, not the job.

    Args:
        done: Steps done; ``total``: steps in all.
        note: What is being done, for people.

    Raises:
        Cancelled: somebody cancelled the job.
    """
    job_id = current_job_id()
    if job_id is None:
        return
    try:
        with answered("a progress report"):
            facilities().barrier.flush()  # that it runs is known before how far it is
            stop = facilities().records.progress(job_id, {"done": done, "total": total, "note": note})
    except BrokerUnavailable as error:
        logger.warning("progress of job %s not reported: %s", job_id, error)
        return
    if stop:
        raise Cancelled(f"job {job_id}: somebody asked it to stop; it did after step {done} of {total}")


def check_cancelled() -> None:
    """Stop the current job here if somebody cancelled it. Outside of a worker nothing happens.

    Call it as often as you like, where stopping leaves nothing half done: it asks nobody. Workers look four times a
    second which of their jobs were cancelled.

    Raises:
        Cancelled: somebody cancelled the job.
    """
    message = CurrentMessage.get_current_message()
    if message is not None and getattr(message, "cancel_requested", False):
        raise Cancelled(f"job {message.message_id}: somebody asked it to stop, and it did")


def request_cancel(job_id: str) -> str:
    """Cancel a job: one that waits never starts, one that runs is told, interrupted, and killed within 10 s.

    Returns:
        ``cancelled`` (it never starts), ``asked`` (a worker has it), ``ended`` (too late) or ``unknown``.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    with answered("a request to cancel"):
        return cancel(facilities(), job_id)


def _message(actor: Actor[Any, Any], owner: str, kwargs: dict[str, Any]) -> Message[Any]:
    options: dict[str, Any] = {"owner": owner} if owner else {}
    return actor.message_with_options(kwargs=kwargs, **options)


def _enqueue(broker: Broker, message: Message[Any], delay_ms: int | None) -> str:
    with answered("an enqueue"):
        return broker.enqueue(message, delay=delay_ms).message_id
