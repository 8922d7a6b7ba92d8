"""Enqueuing, progress, cancellation and early start of jobs. A job is a message; its id is the message id.

Jobs of a request with an ``Idempotency-Key`` get ids that are derived from the claim of the key. A repetition of the
request looks for their records and marks first: the broker remembers a finished id for 10 minutes only.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction
from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage

from switchyard.api.request_jobs import HistoryUnavailable, current_request
from switchyard.audit.services import Who, act
from switchyard.broker.admin.scheduled import cancel, run_now
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import progress_of
from switchyard.broker.topology import LONGEST_DELAY_MS, is_whole
from switchyard.database import in_transaction
from switchyard.history.queries import find
from switchyard.jobs.calls import CallArguments
from switchyard.jobs.queries import is_job_id, own_queues, queues_of
from switchyard.middleware.arguments import require_named, signature_of
from switchyard.middleware.errors import ArgumentMismatch, Cancelled, InvalidOption
from switchyard.middleware.options import usable_delay
from switchyard.outbox.rows import cancel_waiting, waiting_job
from switchyard.outbox.sends import CommitSends, sends_of

logger = logging.getLogger(__name__)


def submit(
    actor: Actor[Any, Any],
    *args: Any,
    owner: str = "",
    delay_ms: int | None = None,
    job_id: str | None = None,
    kwargs: dict[str, Any] | None = None,
    **named: Any,
) -> str:
    """Enqueue a job and return its id, or the id of the unfinished job that holds the same unique key.

    Inside a transaction it waits for the commit where the setting ``SENDS`` says so, like every send.

    Args:
        owner: ``Token.owner_key`` of the API user who may see the job; empty: operators only.
        delay_ms: Milliseconds until the job may start.
        job_id: A UUID, the same for the same work: it is not enqueued again until 25 hours after its end, nor while the
            history has it. By default a random one, or with an ``Idempotency-Key`` one that is the same for every
            repetition of the request.
        args, named, kwargs: The actor's arguments, checked here; ``kwargs`` takes those that are called ``owner``.

    Raises:
        BrokerUnavailable: the broker did not answer. The job may have been enqueued nevertheless.
        HistoryUnavailable: the job was given an id, and the database did not answer whether it ran before.
        QueueFull: the queue has reached its depth limit.
        ArgumentMismatch, InvalidOption, ValueError: the arguments, an option, or the job id cannot be used.
    """
    message, look_up = message_of(actor, owner, _merged(kwargs, named), job_id, args)
    return enqueue_message(actor.broker, message, delay_ms, look_up=look_up)


def enqueue_on_commit(
    actor: Actor[Any, Any],
    *args: Any,
    owner: str = "",
    using: str = "default",
    delay_ms: int | None = None,
    job_id: str | None = None,
    kwargs: dict[str, Any] | None = None,
    **named: Any,
) -> str:
    """Enqueue a job when the current transaction commits, whatever the setting ``SENDS`` says; return its id at once.

    Outside a transaction the job is enqueued now. What the broker refuses it refuses here, while the transaction can
    roll back. With the outbox nothing can be lost after that. Without it, if the broker is down or the queue full at
    the commit, the commit stands, the job is not enqueued, and the transaction's block raises the error. If an
    unfinished job holds the same unique key at the commit, nothing is enqueued and the id returned here stays unknown.

    Args:
        owner, job_id, args, named, kwargs: As for ``submit``.
        using: Alias of the transaction's database.
        delay_ms: Milliseconds from now until the job may start. An actor's own argument of that name is passed in
            ``kwargs``.

    Raises:
        ArgumentMismatch, InvalidOption, ValueError: as for ``submit``.
        PayloadTooLarge, UnencodablePayload: the arguments cannot be sent.
        BrokerUnavailable, QueueFull: see above.
    """
    message, look_up = message_of(actor, owner, _merged(kwargs, named), job_id, args, on_commit=using)
    if delay_ms is not None:
        _require_delay(actor, message, delay_ms)
    return enqueue_message(actor.broker, message, delay_ms, look_up=look_up)


def send_for(
    actor: Actor[..., Any],
    call: CallArguments,
    *,
    who: Who,
    owner: str = "",
    delay_ms: int | None = None,
    tags: Sequence[str] = (),
    job_id: str | None = None,
) -> str:
    """Enqueue a job that a person sends; return its id, or that of the unfinished job with the same unique key.

    Args:
        call: Arguments that :mod:`switchyard.jobs.calls` has checked.
        who: The person, for the audit log.
        owner, job_id: As for ``submit``. The job is recorded even with ``track=False``.

    Raises:
        BrokerUnavailable: the broker did not answer. The job may have been enqueued nevertheless.
        QueueFull: the queue has reached its depth limit.
        InvalidOption: a tag or the delay cannot be used.
        django.db.DatabaseError: the audit log cannot be written; nothing was sent.
    """
    queues = partial(own_queues, actor)
    with act("job.send", who=who, target=actor.actor_name, queues=queues) as entry:
        if delay_ms is not None and not is_whole(delay_ms, most=LONGEST_DELAY_MS):  # a person means no negative delay
            remedy = f"write milliseconds, from 0 to {LONGEST_DELAY_MS}"
            raise InvalidOption(actor.actor_name, "delay", delay_ms, remedy)
        options: dict[str, Any] = {"tags": list(tags)} if tags else {}
        message, look_up = message_of(actor, owner, call.kwargs, job_id, call.args, **options)
        sent = enqueue_message(actor.broker, message, delay_ms, look_up=look_up)
        entry.count, entry.detail = 1, {"job": sent, "queue": actor.queue_name}
    return sent


def current_job_id() -> str | None:
    """Return the id of the job that runs this code, or ``None`` outside of a worker."""
    message = CurrentMessage.get_current_message()
    return None if message is None else message.message_id


def current_job_sent_at() -> datetime | None:
    """Return the time at which the job that runs this code was enqueued, or ``None`` outside of a worker.

    The same in every attempt and redelivery: what is newer may be the work of an earlier run of this job.
    """
    message = CurrentMessage.get_current_message()
    return None if message is None else datetime_of(message.options.get("enqueued_at", message.message_timestamp))


def report_progress(done: int, total: int, note: str = "") -> None:
    """Record the current job's progress, and stop the job if it was cancelled. Records nothing outside of a worker.

    Call it between steps, where stopping leaves nothing half done. Without a broker only the report is lost.

    Args:
        done, total: Steps done, and steps in all.
        note: Description of the current step, for pages and logs; cut after 500 characters.

    Raises:
        Cancelled: the job was cancelled.
        ValueError: ``done`` or ``total`` is no finite number.
    """
    progress = progress_of(done, total, note)
    message = CurrentMessage.get_current_message()
    if message is None:
        return
    found, job_id = facilities(), message.message_id
    queue = found.yard.queue_of(message.queue_name.removesuffix(".DQ")).name
    try:
        found.barrier.flush(queue=queue)  # records that the job runs before its progress
        stop = found.records.progress(job_id, progress, queue=queue)
    except BrokerError as error:
        logger.warning("progress of job %s not reported: %s", job_id, error)
        return
    if stop:
        raise Cancelled(f"job {job_id}: cancelled on request, after step {done} of {total}")


def check_cancelled() -> None:
    """Stop the current job if it was cancelled. Does nothing outside of a worker.

    Call it as often as you like, where stopping leaves nothing half done: it reads a flag in memory. Workers poll the
    broker for cancelled jobs four times a second.

    Raises:
        Cancelled: the job was cancelled.
    """
    message = CurrentMessage.get_current_message()
    if message is not None and getattr(message, "cancel_requested", False):
        raise Cancelled(f"job {message.message_id}: cancelled on request")


def request_cancel(job_id: str, *, who: Who | None = None, reason: str = "") -> str:
    """Cancel a job: a waiting one never starts; a running one is notified, interrupted, and killed within 10 s.

    Args:
        who: The person whose act it is, for the audit log; ``None``: the program's own.
        reason: Why, for the audit log.

    Returns:
        ``cancelled`` (it never starts), ``asked`` (a worker runs it), ``ended`` (too late) or ``unknown``.
    """
    if who is None:
        return _cancel(job_id)
    # Without a row rather than not at all: it is asked for when things go wrong.
    queues = partial(queues_of, job_id)
    with act("job.cancel", who=who, target=job_id, reason=reason, essential=False, queues=queues) as entry:
        answer = _cancel(job_id)
        entry.count, entry.detail = int(answer in ("cancelled", "asked")), {"answer": answer}
        entry.error = "" if entry.count else answer
    return answer


def _cancel(job_id: str) -> str:
    """Cancel a job in the broker, or in the outbox if it is not sent yet; and again if it was sent meanwhile."""
    answer = cancel(facilities(), job_id)
    if answer != "unknown":
        return answer
    was_waiting = cancel_waiting(job_id)
    answer = cancel(facilities(), job_id)
    return "cancelled" if was_waiting and answer == "unknown" else answer


def message_of(
    actor: Actor[Any, Any],
    owner: str,
    kwargs: dict[str, Any] | None,
    job_id: str | None,
    args: tuple[Any, ...] = (),
    **given: Any,
) -> tuple[Message[Any], bool]:
    """Return a job's message with ``given`` options, and whether an earlier run of its sender may have enqueued it."""
    if not isinstance(actor, Actor):
        raise TypeError(f"a {type(actor).__name__} is not an actor; pass what @dramatiq.actor returns")
    require_named(actor, kwargs or {})
    if job_id is not None and (not isinstance(job_id, str) or not is_job_id(job_id)):
        remedy = "write str(uuid4()), or a uuid5 of your key"
        raise ValueError(f"job_id {job_id!r:.100} is not a UUID in lower case; {remedy}")
    request = current_request()
    options: dict[str, Any] = {**given, "owner": owner} if owner not in ("", None) else given
    look_up = job_id is not None
    if job_id is None and request is not None:
        job_id = request.next_job_id()
        look_up = job_id is not None and request.repeated
    elif request is not None:
        request.safe_to_repeat = True
    if job_id is None:
        return actor.message_with_options(args=args, kwargs=kwargs, **options), False
    # Recorded whatever its actor says: the record tells a repetition that the job was enqueued.
    message = actor.message_with_options(args=args, kwargs=kwargs, **options, track=True)
    return message.copy(message_id=job_id), look_up


def _merged(kwargs: dict[str, Any] | None, named: dict[str, Any]) -> Any:
    """Return both kinds of arguments by name as one; ``kwargs`` that are no ``dict`` as they are, to be refused."""
    return kwargs if kwargs and not isinstance(kwargs, dict) else named | (kwargs or {})


def _require_delay(actor: Actor[Any, Any], message: Message[Any], delay_ms: Any) -> None:
    """Refuse a delay that the broker would refuse at the commit, and one that may be meant as the actor's argument.

    Raises:
        ArgumentMismatch: the actor has an argument ``delay_ms``, which is not passed.
        InvalidOption: it is no number of milliseconds up to a year.
    """
    if "delay_ms" in [*signature_of(actor.fn).parameters][len(message.args) :] and "delay_ms" not in message.kwargs:
        fact = "delay_ms is an option of this call and an argument of the actor"
        remedy = "to pass it to the actor write kwargs={'delay_ms': ...}, also beside the option"
        raise ArgumentMismatch(actor.actor_name, f"{fact}; {remedy}", actor.fn)
    if remedy := usable_delay(delay_ms):
        raise InvalidOption(actor.actor_name, "delay_ms", delay_ms, remedy)


def start_now(job_id: str, *, who: Who, reason: str = "") -> str:
    """Make a scheduled job, or one that waits for its retry, due at once; the answers are those of ``run_now``.

    Raises:
        BrokerUnavailable: the broker did not answer.
        django.db.DatabaseError: the audit log cannot be written; nothing was changed.
    """
    with act("job.run_now", who=who, target=job_id, reason=reason, queues=partial(queues_of, job_id)) as entry:
        answer = run_now(facilities(), job_id)
        entry.count, entry.detail = int(answer == "due"), {"answer": answer}
        entry.error = "" if entry.count else answer
    return answer


def enqueue_message(broker: Broker, message: Message[Any], delay_ms: int | None, *, look_up: bool) -> str:
    """Enqueue a message of :func:`message_of` and return its job id, for the request that sends it as well.

    Inside a transaction it may wait for the commit, which notes it for the request. With the outbox a request's job is
    a row in any case, in a transaction of its own if need be: a broker that is away costs the request no job.
    """
    request, sends = current_request(), sends_of(broker)
    job_id = message.message_id
    try:
        if not look_up or not _was_enqueued(job_id, sends):
            if sends is None:
                return _sent_elsewhere(broker, message, delay_ms)
            if sends.transaction_of(message):
                broker.enqueue(message, delay=delay_ms)
                return job_id
            if request is not None and (alias := sends.own_transaction_of(message)):
                with transaction.atomic(using=alias):
                    broker.enqueue(message, delay=delay_ms)
                return request.job_ids[-1]
            job_id = broker.enqueue(message, delay=delay_ms).message_id
    except BrokerError as error:
        if request is not None:
            request.note_failure(job_id, error.outcome)
        raise
    if request is not None:
        request.job_ids.append(job_id)
    return job_id


def _sent_elsewhere(broker: Broker, message: Message[Any], delay_ms: int | None) -> str:
    """Enqueue on a broker of another library, such as a test's, which keeps nothing until a commit itself."""
    alias = message.options.pop("on_commit", "")
    if alias and in_transaction(connections[alias]):
        transaction.on_commit(lambda: broker.enqueue(message, delay=delay_ms), using=alias)
        return message.message_id
    return broker.enqueue(message, delay=delay_ms).message_id


def _was_enqueued(job_id: str, sends: CommitSends | None) -> bool:
    """Return whether a job has a record or the mark of its end in the broker, or a row in the history or the outbox.

    The history knows jobs that a broker has lost, and those that ended on a release that left no marks. With the outbox
    no broker need answer: the relay looks again before it sends.
    """
    keeps_rows = sends is not None and sends.keeps_rows
    records = facilities().records
    try:
        if keeps_rows and waiting_job(job_id) is not None:
            return True
        if records.states([job_id]) != [None] or records.is_marked(job_id):
            return True
        return find(job_id) is not None
    except DatabaseError as error:
        raise HistoryUnavailable(job_id, type(error).__name__) from error
    except BrokerUnavailable:
        if sends is None or not keeps_rows:
            raise
        sends.leave_to_relay()
        return False
