"""Running a job again: a new job of the same actor, with the same or with edited arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dramatiq
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused
from switchyard.conf import declared_yard
from switchyard.history.queries import were_enqueued
from switchyard.jobs.calls import CallArguments, checked
from switchyard.jobs.passport.reading import Passport
from switchyard.jobs.presentation import shown_arguments
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.redaction import HIDDEN


def arguments_kept(known: Passport, actor: Actor[..., Any]) -> CallArguments | None:
    """Return a job's arguments as it got them, or ``None`` when what is kept of them was redacted, cut or left out."""
    job, arguments = known.job, known.arguments
    if job.args or job.kwargs:
        return CallArguments(tuple(job.args), dict(job.kwargs))
    if not arguments:
        # Of a large message that has ended no arguments are kept, as if it had had none.
        had_none = arguments is not None and (not job.ended or not signature_of(actor.fn).parameters)
        return CallArguments((), {}) if had_none else None
    return None if _hides(arguments) or any(" " in name for name in arguments) else CallArguments((), dict(arguments))


def run_again(
    known: Passport, *, edited: Mapping[str, Any] | None = None, who: Who, reason: str = "", job_id: str = ""
) -> str:
    """Enqueue a job again as a new one of the same owner and tags; return its id.

    Args:
        edited: Arguments by name in place of the first ones; a value ``[redacted]`` stands for the first one.
        job_id: Id to give the job, so that a form that is sent twice enqueues one; by default a new one.

    Raises:
        ActRefused: this code has not got the actor, or the arguments are not kept.
        ArgumentsRefused: the arguments do not fit the actor.
        BrokerUnavailable, QueueFull: it was not enqueued.
        django.db.DatabaseError: the audit log cannot be written; nothing was enqueued.
    """
    job, message = known.job, again_message(known, edited=edited, job_id=job_id)

    def queues() -> tuple[str, ...]:
        return job.queue, declared_yard().queue_of(message.queue_name).name

    with act("job.run_again", who=who, target=job.id, reason=reason, queues=queues) as entry:
        sent = enqueue_again(message, once=bool(job_id))
        entry.count, entry.detail = 1, {"job": sent, "actor": job.actor, "edited": edited is not None}
    return sent


def again_message(known: Passport, *, edited: Mapping[str, Any] | None = None, job_id: str = "") -> Message[Any]:
    """Return the message of a job that is to run again. Arguments and errors as in ``run_again``."""
    job = known.job
    actor = dramatiq.get_broker().actors.get(job.actor)
    if actor is None:
        raise ActRefused(f"job {job.id}", f"this code has no actor {job.actor}; run it again with the release that has")
    call = _call(known, actor, edited)
    options: dict[str, Any] = {"owner": job.owner} if job.owner else {}
    if job.tags:
        options["tags"] = list(job.tags)
    message = actor.message_with_options(args=call.args, kwargs=call.kwargs, **options)
    return message.copy(message_id=job_id) if job_id else message


def enqueue_again(message: Message[Any], *, once: bool) -> str:
    """Enqueue a message and return its id.

    Args:
        once: Not if the broker or the history knows a job of its id.
    """
    broker = dramatiq.get_broker()
    if once and were_enqueued([message.message_id]):
        return message.message_id
    return str(broker.enqueue(message).message_id)


def _call(known: Passport, actor: Actor[..., Any], edited: Mapping[str, Any] | None) -> CallArguments:
    job, kept = known.job, arguments_kept(known, actor)
    if edited is None:
        if kept is None:
            raise ActRefused(f"job {job.id}", "its arguments were redacted or cut when it ended; write them all anew")
        return checked(actor, kept.args, kept.kwargs)
    shown = shown_arguments(job.actor, kept.args, kept.kwargs) if kept is not None else {}
    first = dict(zip(shown, (*kept.args, *kept.kwargs.values()), strict=False)) if kept is not None else {}
    values = {}
    for name, value in edited.items():
        # Unchanged, also in its hidden parts and long texts that are shown cut.
        is_first = name in first and value == shown.get(name)
        if not is_first and _hides({name: value}):
            raise ActRefused(
                f"job {job.id}", f"argument {name} is {HIDDEN}, and its first value is not kept; write one"
            )
        values[name] = first[name] if is_first else value
    return _named(actor, values, kept)


def _named(actor: Actor[..., Any], values: dict[str, Any], kept: CallArguments | None) -> CallArguments:
    """Return values by name as a call; numbered ones, of ``*args``, follow those by place."""
    numbered = [value for name, value in values.items() if name.startswith("argument ")]
    if not numbered:
        return checked(actor, (), values)
    by_place = len(kept.args) - len(numbered) if kept is not None else 0
    places = [value for name, value in values.items() if not name.startswith("argument ")]
    names = [name for name in values if not name.startswith("argument ")]
    named = dict(zip(names[by_place:], places[by_place:], strict=True))
    return checked(actor, (*places[:by_place], *numbered), named)


def _hides(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_hides(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_hides(item) for item in value)
    return bool(value == HIDDEN)
