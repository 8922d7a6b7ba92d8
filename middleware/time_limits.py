"""Limits of time: a message that is too old is never run, and an exception ends a task past its soft limit."""

import math
from typing import Any, ClassVar

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware, SkipMessage, TimeLimitExceeded

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import UnknownQueue
from switchyard.broker.topology import LONGEST_DELAY_MS, Queue, Yard, is_delay, is_duration
from switchyard.middleware.interrupts import Interrupts
from switchyard.middleware.options import OptionRule, rule_of_both, takes
from switchyard.middleware.outcomes import Outcome, decide


class AgeLimits(Middleware):
    """Middleware that ends a message as ``expired`` when it is older than its ``max_age`` (ms) at its start.

    Option of an actor and of a message, whose own goes first; 0 is none. The age counts from the message's creation on,
    through delays and retries; that of a message that a person requeued from the requeue on.
    """

    option_rules: ClassVar = (
        rule_of_both("max_age", takes(is_delay, f"write milliseconds, up to {LONGEST_DELAY_MS}, 0 for no limit")),
    )
    actor_options = {"max_age"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        max_age_ms = message.options.get("max_age") or broker.actors[message.actor_name].options.get("max_age")
        if not max_age_ms:
            return
        created_ms = message.message_timestamp
        if message.options.get("generation"):
            created_ms = message.options.get("enqueued_at", created_ms)
        age_ms = now_ms() - int(created_ms)
        if age_ms >= max_age_ms:
            decide(message, Outcome("expired", "max_age"))
            raise SkipMessage(f"it is {age_ms} ms old, max_age is {max_age_ms:g} ms")


class TimeLimits(Middleware):
    """Middleware that enforces the ``time_limit`` (ms) of a message, else of its actor, else its queue's soft limit.

    A system check refuses actors whose limit reaches the queue's hard limit. An actor without end (``None``, infinity;
    by name in ``endless``) gets 95 % of that one, so that its task is interrupted before its process is killed.

    Listed last: an exception in a hook would end the thread, and acknowledge the message without a retry.
    """

    actor_options = {"time_limit"}

    def __init__(self, *, yard: Yard, interrupts: Interrupts) -> None:
        self._yard = yard
        self._interrupts = interrupts
        self.endless: dict[str, float | None] = {}
        self.option_rules = (OptionRule("time_limit", _of_actor, self._of_message, takes_none=False),)

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Set the queue's soft limit on an actor without its own, nearly its hard limit on one without end."""
        try:
            queue = self._yard.queue_of(actor.queue_name)
        except UnknownQueue:
            return  # refused by a system check
        limit_ms = actor.options.setdefault("time_limit", queue.soft_limit_ms)
        if _is_endless(limit_ms):
            self.endless[actor.actor_name] = limit_ms
            actor.options["time_limit"] = _longest_ms(queue)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the longest limit of its queue on a message without end: infinity is no JSON."""
        lane, options = message.queue_name, message.options
        while True:
            if options.get("time_limit") == math.inf:
                options["time_limit"] = _longest_ms(self._yard.queue_of(lane))
            step = options.get("pipe_target")
            if step is None:
                return
            lane, options = step["queue_name"], step["options"]

    def after_process_boot(self, broker: Broker) -> None:
        self._interrupts.start()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._interrupts.begin(message.message_id, self._limit_ms(broker, message) / 1000)
        if getattr(message, "cancel_requested", False):  # requested before there was a task to interrupt
            self._interrupts.cancel(message.message_id, after_s=0)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Stop the time limit. One that is reached now is withdrawn: the task has ended."""
        self._interrupts.end()
        if isinstance(exception, TimeLimitExceeded) and not exception.args:
            exception.args = (f"ran for longer than its time_limit of {self._limit_ms(broker, message):g} ms",)

    after_skip_message = after_process_message

    def _limit_ms(self, broker: Broker, message: MessageProxy) -> float:
        own: float | None = message.options.get("time_limit")
        if own is not None:
            return own
        inherited: float = broker.actors[message.actor_name].options.get("time_limit", math.inf)
        return inherited

    def _of_message(self, limit_ms: Any, queue: str) -> str:
        try:
            hard_limit_ms: float = self._yard.queue_of(queue).hard_limit_ms
        except UnknownQueue:
            hard_limit_ms = math.inf
        usable = _is_endless(limit_ms) or (is_duration(limit_ms) and limit_ms < hard_limit_ms)
        return "" if usable else f"write milliseconds above 0, below the queue's hard limit of {hard_limit_ms} ms"


def _of_actor(limit_ms: Any, actor: Actor[..., Any]) -> str:
    """Accept a duration, and none. A system check compares it with the queue's hard limit."""
    usable = _is_endless(limit_ms) or is_duration(limit_ms)
    return "" if usable else "write milliseconds above 0, or leave it out for the queue's soft limit"


def _is_endless(limit_ms: Any) -> bool:
    return limit_ms is None or (type(limit_ms) is float and limit_ms == math.inf)


def _longest_ms(queue: Queue) -> int:
    return max(queue.soft_limit_ms, queue.hard_limit_ms * 95 // 100)
