"""Pipelines and callbacks: Dramatiq's own, except that a step is retried while the broker is unavailable.

Dramatiq drops what an after-hook raises. A step that was not sent because the broker was unavailable would be lost,
although the job before it is acknowledged as soon as the broker is available again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Callbacks, MiddlewareError, Pipelines

from switchyard.broker.errors import PayloadTooLarge, UnencodablePayload
from switchyard.middleware.errors import UnusableResult
from switchyard.middleware.follow_ups import fields_of, follow_up_of
from switchyard.middleware.option_rules import OptionRule, actor_name, flag, is_message, rule_of_both
from switchyard.middleware.wait_for_broker import retry_until_available


class DurablePipelines(Pipelines):
    """Middleware that sends the next step of a pipeline, with retries while the broker is unavailable."""

    option_rules: ClassVar = (
        rule_of_both("pipe_ignore", flag),
        OptionRule("pipe_target", None, lambda value, queue: "" if is_message(value) else "write a pipeline"),
    )
    actor_options = {"pipe_ignore"}

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.options.get("pipe_target") is None:
            return
        lane = message.options["pipe_target"].get("queue_name")
        if exception is None and lane not in broker.queues:  # a queue of newer code, whose workers consume it
            broker.declare_queue(lane)
        send = partial(super().after_process_message, broker, message, result=result, exception=exception)
        _send(send, message, "next step of a pipeline")


class DurableCallbacks(Callbacks):
    """Middleware that sends a job's callback, with retries while the broker is unavailable.

    A callback to an actor that this code does not have is sent to the job's queue, where a newer worker runs it.
    """

    option_rules: ClassVar = (rule_of_both("on_success", actor_name), rule_of_both("on_failure", actor_name))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        name = "on_success" if exception is None else "on_failure"
        actor = broker.actors.get(message.actor_name)
        callback = actor and (message.options.get(name) or actor.options.get(name))
        if actor is None or not callback:
            return
        outcome = result if exception is None else {"type": type(exception).__name__, "message": str(exception)}
        # Created once: a second send after a lost answer enqueues the same message id.
        follows = follow_up_of(broker, message, callback, name, (fields_of(message), outcome))
        _send(partial(broker.enqueue, follows), message, "callback")


def _send(send: Callable[[], object], message: MessageProxy, what: str) -> None:
    """Send what follows a job, which is part of it: without it the job has not succeeded."""
    try:
        retry_until_available(send, job_id=message.message_id, what=what)
    except (PayloadTooLarge, UnencodablePayload, MiddlewareError) as error:
        raise UnusableResult(f"actor {message.actor_name}: its {what} was refused: {error}") from error
