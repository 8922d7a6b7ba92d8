"""Callbacks, pipelines and groups: Dramatiq's own, except that a step is retried, and a group's callback sent once.

And the ends of a batch's members that no script of the broker sees: a run that was cancelled, a send that yielded.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple, ParamSpec, TypeVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Callbacks, GroupCallbacks, Middleware, MiddlewareError, Pipelines

from switchyard.broker.errors import BrokerRefused, InvalidMessageId, PayloadTooLarge, UnencodablePayload
from switchyard.broker.interface import Transport
from switchyard.broker.queue.administration import follows_a_job
from switchyard.broker.queue.codec import as_sent
from switchyard.broker.stores.batches import Batches, Outcome, batch_of
from switchyard.broker.stores.limit_counts import GroupBarriers
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.loggers import get_logger
from switchyard.middleware.errors import UnusableResult
from switchyard.middleware.options import actor_name, flag, is_message, rule_of_both, rule_of_message, takes
from switchyard.middleware.outcomes import attempt, outcome_of, text_of
from switchyard.middleware.wait_for_broker import retry_until_available

P = ParamSpec("P")
T = TypeVar("T")

_NAMESPACE: Final = uuid.UUID("1c7a5f0e-6d8f-5b0a-9f5e-52a7e0f1d0c4")
DAY_MS: Final = 86_400_000


def follow_up_of(
    broker: Broker, message: MessageProxy, target: str, option: str, args: tuple[Any, ...]
) -> Message[Any]:
    """Return the message of an option that names an actor, such as ``on_success``.

    Its id follows from job, attempt and option: a repetition of the job sends the same id, which is enqueued once. For
    an actor that this code does not have it goes to the job's queue, where a newer worker runs it.
    """
    known = broker.actors.get(target)
    generation = message.options.get("generation", 0)
    id_ = str(uuid.uuid5(_NAMESPACE, f"{message.message_id} {generation} {attempt(message)} {option}"))
    if known is not None:
        return known.message(*args).copy(message_id=id_)
    return Message(broker.actors[message.actor_name].queue_name, target, args, {}, {}, message_id=id_)


def fields_of(message: MessageProxy) -> dict[str, Any]:
    """Return the fields of a message as Dramatiq passes them to what follows it, with its arguments as it came."""
    sent = as_sent(message)
    return {**message.asdict(), "args": sent.args, "kwargs": sent.kwargs}


# A forged or altered follow-up fails in Dramatiq and in the broker in many ways.
REFUSALS: Final = (
    PayloadTooLarge, UnencodablePayload, InvalidMessageId, BrokerRefused, MiddlewareError, TypeError, ValueError,
    LookupError, AttributeError,
)  # fmt: skip

log = get_logger(__name__)


class DurablePipelines(Pipelines):
    """Middleware that sends the next step of a pipeline, with retries while the broker is unavailable."""

    option_rules: ClassVar = (
        rule_of_both("pipe_ignore", flag),
        rule_of_message("pipe_target", takes(is_message, "write a pipeline")),
    )
    actor_options = {"pipe_ignore"}

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.options.get("pipe_target") is None:
            return

        def send() -> None:
            if exception is None:  # a queue of newer code, whose workers consume it
                broker.declare_queue(message.options["pipe_target"]["queue_name"])
            after(broker, message, result=result, exception=exception)

        after = super().after_process_message
        send_follow_up(message, "next step of a pipeline", send)


class DurableCallbacks(Callbacks):
    """Middleware that sends the callback of a job that succeeded, with retries while the broker is unavailable.

    That of a failure is sent by :class:`switchyard.middleware.retries.Retries`: a deferral is none.
    """

    option_rules: ClassVar = (rule_of_both("on_success", actor_name), rule_of_both("on_failure", actor_name))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is None and (target := target_of(broker, message, "on_success")):
            call_back(broker, message, target, "on_success", fields_of(message), result)


def target_of(broker: Broker, message: MessageProxy, option: str) -> Any:
    """Return the name of the actor in an option of a message, or of its actor; what is false without one."""
    actor = broker.actors.get(message.actor_name)
    return actor and (message.options.get(option) or actor.options.get(option))


def call_back(broker: Broker, message: MessageProxy, target: str, option: str, *args: Any) -> None:
    """Send the message of an option that names an actor; ``UnusableResult`` where it is refused."""
    # Created once: a second send after a lost answer enqueues the same message id.
    follows = follow_up_of(broker, message, target, option, args)
    send_follow_up(message, option, broker.enqueue, follows)


def report_failure(broker: Broker, message: MessageProxy, exception: BaseException) -> None:
    """Send the message of ``on_failure``, if there is one; ``UnusableResult`` where it is refused."""
    if target := target_of(broker, message, "on_failure"):
        error = {"type": type(exception).__name__, "message": text_of(exception)}
        call_back(broker, message, target, "on_failure", fields_of(message), error)


def send_follow_up(message: MessageProxy, what: str, send: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Send what follows a job, which is part of it: without it the job has not succeeded."""
    try:
        return retry_until_available(message, what, send, *args, **options)
    except REFUSALS as error:
        raise UnusableResult(f"actor {message.actor_name}: its {what} was refused: {error}") from error


class DurableGroupCallbacks(GroupCallbacks):
    """Middleware that sends the callbacks of a group once all its jobs have succeeded.

    A job is counted by its id, after its record is written: the results of all jobs are there when the callbacks start.
    One that is not enqueued, because its id is known or its unique key held, is counted at once: no other end of it
    comes. Each step may be repeated, as after a worker's death: the callbacks keep the ids that the group gave them.

    Listed before the middleware that records the result. ``barrier_ttl`` are the milliseconds that a group is known
    after the last job that succeeded.
    """

    def __init__(
        self, *, groups: GroupBarriers, barrier: AckBarrier, yard: Yard, transport: Transport, barrier_ttl: int = DAY_MS
    ) -> None:
        super().__init__(groups, barrier_ttl=barrier_ttl)
        self._groups = groups
        self._barrier = barrier
        self._yard = yard
        self._transport = transport

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Count a job whose id is known already, in its group or from elsewhere: it is not enqueued again."""
        if (job := _job_of_group(message)) is None or not self._groups.run.sends(job.group) or follows_a_job():
            return
        repeated = self._groups.run.is_repeated(job.id)
        if repeated or self._transport.knows(message.queue_name, message.message_id):
            self._count_other(broker, message, job, f"{job.id} {uuid.uuid4()}")

    def after_yield_to_holder(self, broker: Broker, message: Message[Any]) -> None:
        """Count a job that is not enqueued, or a pipeline that ends here, because another job has its unique key."""
        if (job := _job_of_group(message)) is not None:
            self._count_other(broker, message, job, job.id)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is not None or "group_completion_callbacks" not in message.options:
            return
        if (job := _job_in(message.message_id, message.options)) is None:
            return
        state = send_follow_up(message, "end of a group's job", self._count, job.group, message)
        if state == "unknown":
            log.error("group unknown, its callbacks are not sent", group=job.group, job_id=message.message_id)
        if state == "complete":
            send_follow_up(message, "callback of a group", self._call_back, broker, job)

    def _count(self, group: str, message: MessageProxy) -> str:
        self._barrier.flush(with_starts=False, queue=self._yard.queue_of(message.queue_name).name)
        return self._groups.count(group, message.message_id, ttl_ms=self.barrier_ttl)

    def _count_other(self, broker: Broker, message: Message[Any], job: _Job, name: str) -> None:
        """Count a job that another one stands for. A sender does not wait for a broker that is away."""
        log.info("another message stands for a group's job", group=job.group, job_id=job.id, actor=message.actor_name)

        def count() -> None:
            if self._groups.count(job.group, name, ttl_ms=self.barrier_ttl) == "complete":
                self._call_back(broker, job)

        if follows_a_job():
            retry_until_available(message, "count of a group's job", count)
        else:
            count()

    def _call_back(self, broker: Broker, job: _Job) -> None:
        for fields in job.callbacks:
            callback: Message[Any] = Message(**fields).copy()
            broker.declare_queue(callback.queue_name)  # one of newer code, whose workers consume it
            broker.enqueue(callback)
        self._groups.note_sent(job.group, ttl_ms=self.barrier_ttl)


class _Job(NamedTuple):
    """A job that a group counts, by its id: for a pipeline its last step."""

    id: str
    group: str
    callbacks: list[dict[str, Any]]


def _job_of_group(message: Message[Any]) -> _Job | None:
    """Return the job that a message is, or leads to as a step of a pipeline."""
    id_, options = message.message_id, message.options
    while isinstance(target := options.get("pipe_target"), dict):
        id_, options = str(target.get("message_id")), target.get("options") or {}
    return _job_in(id_, options)


def _job_in(id_: str, options: dict[str, Any]) -> _Job | None:
    group, callbacks = options.get("group_completion_uuid"), options.get("group_completion_callbacks")
    return _Job(id_, str(group), callbacks) if group and callbacks else None


# Runs that end by an acknowledgement as a success does.
NOT_DONE: Final[dict[str, Outcome]] = {"cancelled": "cancelled", "expired": "failed"}


class BatchEnds(Middleware):
    """Middleware that notes how a member of a batch ends, where its acknowledgement alone would count as done.

    One that is not enqueued, because another job holds its unique key, counts as done: no other end of it comes. Listed
    before the middleware that decides the outcome.
    """

    def __init__(self, *, batches: Batches, yard: Yard) -> None:
        self._batches = batches
        self._yard = yard

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.message_id[14:15] != "8":
            return
        outcome = NOT_DONE.get(outcome_of(message, exception).kind)
        if outcome is None or not batch_of(message.message_id) or getattr(message, "moved", False):
            return
        token = str(message.lease.token, "ascii")
        what, member = "end of a batch's member", (self._queue_of(message), message.message_id)
        retry_until_available(message, what, self._batches.note_end, *member, outcome, token=token)

    after_skip_message = after_process_message

    def after_yield_to_holder(self, broker: Broker, message: Message[Any]) -> None:
        if batch_of(message.message_id):
            log.info("another message stands for a member of a batch", job_id=message.message_id)
            self._batches.note_end(self._queue_of(message), message.message_id, "done")

    def _queue_of(self, message: Message[Any] | MessageProxy) -> str:
        return self._yard.queue_of(message.queue_name).name
