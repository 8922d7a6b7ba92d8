"""Running a job again, with the same or with edited arguments: as a new job, or by the requeue of its dead letter."""

from collections.abc import Mapping
from inspect import Parameter
from typing import Any, Final

import dramatiq
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused, ArgumentsRefused, PayloadTooLarge, UnencodablePayload
from switchyard.broker.queue import json_body
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.conf import declared_yard
from switchyard.database import storable
from switchyard.dead_letters.acts import act_on
from switchyard.dead_letters.models import DeadLetter
from switchyard.history.queries import were_enqueued
from switchyard.jobs.calls import CallArguments, checked
from switchyard.jobs.presentation import Passport
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import CUT, NUMBERED, by_name, name_at, places_of, shown_arguments

LONGEST_NAME = 200
# Of an argument that was not shown.
ABSENT: Final = object()


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
        ActRefused, ArgumentsRefused: this code has not got the actor, or the arguments are not kept or do not fit it.
        BrokerUnavailable, QueueFull, django.db.DatabaseError: it was not enqueued.
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
    kept = arguments_kept(known, actor)
    if edited is not None:
        call = edited_call(actor, edited, kept)
    elif kept is None:
        raise ActRefused(f"job {job.id}", "its arguments were redacted or cut when it ended; write them all anew")
    else:
        call = checked(actor, kept.args, kept.kwargs)
    options: dict[str, Any] = {"owner": job.owner} if job.owner else {}
    if job.tags:
        options["tags"] = list(job.tags)
    message = actor.message_with_options(args=call.args, kwargs=call.kwargs, **options)
    return message.copy(message_id=job_id) if job_id else message


def enqueue_again(message: Message[Any], *, once: bool) -> str:
    """Enqueue a message, with ``once`` unless the broker or the history knows a job of its id; return its id."""
    if once and were_enqueued([message.message_id]):
        return message.message_id
    return str(dramatiq.get_broker().enqueue(message).message_id)


def requeue_edited(row: DeadLetter, letter: Letter, edited: Mapping[str, Any], *, who: Who, reason: str = "") -> str:
    """Requeue a dead letter with edited arguments by name; return why it was not, or "".

    The audit log names those that changed.

    Raises:
        ArgumentsRefused: this code has not got the actor, or the arguments do not fit it or a message.
        BrokerUnavailable: the broker did not answer; the row shows the result within a minute.
    """
    actor, message = dramatiq.get_broker().actors.get(letter.actor), letter.message
    if actor is None:
        text = f"arguments: this release has no actor {letter.actor}, so they cannot be checked; requeue it unchanged"
        raise ArgumentsRefused(text)
    call = edited_call(actor, edited, CallArguments(tuple(message["args"]), message["kwargs"]))
    try:
        json_body.encode({**message, "args": call.args, "kwargs": call.kwargs})
    except (PayloadTooLarge, UnencodablePayload) as error:
        raise ArgumentsRefused(f"arguments: {error}") from error
    shown = shown_arguments(letter.actor, message["args"], message["kwargs"])
    changed = [storable(name)[:LONGEST_NAME] for name in {**shown, **edited} if shown.get(name) != edited.get(name)]
    detail = {"changed": changed, "actor": row.actor}
    with act("letter.edit", who=who, target=row.message_id, reason=reason, detail=detail, queues=[row.queue]) as entry:
        text = f"{reason} (changed: {', '.join(changed) or 'nothing'})".strip()
        refused = act_on(row, "requeue", by=who.signature, reason=text, arguments=(list(call.args), call.kwargs))
        entry.count = int(not refused)
    return refused


def edited_call(actor: Actor[..., Any], edited: Mapping[str, Any], kept: CallArguments | None) -> CallArguments:
    """Return the call of arguments by name that a person has edited.

    Args:
        edited: As ``shown_arguments`` returns them. What is as it was shown stays as it was, also where parts of it are
            hidden or cut.
        kept: The call before, if it is known.

    Raises:
        ArgumentsRefused: the arguments do not fit the actor, or one is hidden or cut and was never known so.
    """
    args, kwargs = ((), {}) if kept is None else (kept.args, kept.kwargs)
    first = by_name(actor, {"args": args, "kwargs": kwargs})
    shown = shown_arguments(actor.actor_name, args, kwargs)
    values = {name: _whole(value, shown.get(name, ABSENT), first.get(name), name) for name, value in edited.items()}
    return checked(actor, *_placed(actor, values, len(args)))


def _whole(value: Any, shown: Any, first: Any, path: str) -> Any:
    """Return an edited value with the first ones in place of what is as it was shown."""
    if type(value) is type(shown) and value == shown:
        return first
    olds: Any
    before: Any
    if isinstance(value, dict):
        olds, before = (shown, first) if isinstance(shown, dict) else ({}, {})
        return {
            name: _whole(item, olds.get(name, ABSENT), before.get(name), f"{path}.{name}")
            for name, item in value.items()
        }
    if isinstance(value, list):
        # Of a list that is longer or shorter nobody knows where its values have gone.
        alike = isinstance(shown, list) and len(shown) == len(value)
        olds, before = (shown, first) if alike else ([ABSENT] * len(value), [None] * len(value))
        return [_whole(item, olds[place], before[place], f"{path}[{place}]") for place, item in enumerate(value)]
    if value == HIDDEN or (isinstance(value, str) and CUT.search(value)):
        raise ArgumentsRefused(f"argument {path} is hidden or cut, and its first value is not kept; write one")
    return value


def _placed(actor: Actor[..., Any], values: dict[str, Any], by_place: int) -> tuple[list[Any], dict[str, Any]]:
    """Return values by name as a call: by place those that were so, and those that cannot be given by name."""
    parameters = signature_of(actor.fn).parameters
    nameless = {each.name for each in parameters.values() if each.kind is each.VAR_POSITIONAL}
    names = places_of(actor)
    rest = dict(values)
    args: list[Any] = []

    def left() -> str:
        return next((name for name in rest if name in nameless or name.startswith(NUMBERED)), "")

    while (name := name_at(names, len(args))) in rest:
        only_by_place = len(args) >= len(names) or parameters[name].kind is Parameter.POSITIONAL_ONLY
        if not (len(args) < by_place or only_by_place or left()):
            break
        args.append(rest.pop(name))
    if left():
        raise ArgumentsRefused(f"arguments: {left()} has a place and no name: {name} is missing before it; write both")
    return args, rest


def _hides(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_hides(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_hides(item) for item in value)
    return bool(value == HIDDEN)
