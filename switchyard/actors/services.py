"""Sending of actors by hand."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from dramatiq.actor import Actor

from switchyard.broker.interface import facilities
from switchyard.broker.validation import LONGEST_DELAY_MS, is_whole
from switchyard.jobs.calls.arguments import CallArguments
from switchyard.jobs.queries import is_job_id
from switchyard.middleware.errors import InvalidOption


def send(
    actor: Actor[..., Any],
    call: CallArguments,
    *,
    delay_ms: int | None = None,
    tags: Sequence[str] = (),
    job_id: str = "",
) -> str:
    """Enqueue a job that a person sends; return its id, or that of the unfinished job with the same unique key.

    Args:
        call: Arguments that :mod:`arguments` has checked.
        delay_ms: Milliseconds until the job may start.
        tags: Tags of the job.
        job_id: Id to give the job, so that a form that is sent twice enqueues one; by default a new one.

    Raises:
        BrokerUnavailable: the broker did not answer. The job may have been enqueued nevertheless.
        QueueFull: the queue has reached its depth limit.
        InvalidOption: a tag or the delay cannot be used.
    """
    if delay_ms is not None and not is_whole(delay_ms, most=LONGEST_DELAY_MS):  # a person means no negative delay
        remedy = f"write milliseconds, from 0 to {LONGEST_DELAY_MS}"
        raise InvalidOption(actor.actor_name, "delay", delay_ms, remedy)
    options: dict[str, Any] = {"tags": list(tags)} if tags else {}
    message = actor.message_with_options(args=call.args, kwargs=call.kwargs, **options)
    if is_job_id(job_id):
        if facilities(actor.broker).records.states([job_id]) != [None]:
            return job_id
        message = message.copy(message_id=job_id)
    sent: str = actor.broker.enqueue(message, delay=delay_ms).message_id
    return sent


def new_job_id() -> str:
    """Return an id for a form."""
    return str(uuid.uuid4())
