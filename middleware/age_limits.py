"""Age limits: a message that is too old when it could start is never run."""

from __future__ import annotations

from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.clock import now_ms
from switchyard.broker.validation import LONGEST_DELAY_MS, is_delay
from switchyard.middleware.option_rules import rule_of_both
from switchyard.middleware.outcomes import Outcome, decide


class AgeLimits(Middleware):
    """Middleware that ends a message as ``expired`` when it is older than its ``max_age`` (ms) at its start.

    Option of an actor and of a message, whose own goes first; 0 is none. The age counts from the message's creation
    on, through delays and retries, by the clock of the yard (:mod:`switchyard.broker.clock`). That of a message that a
    person requeued counts from the requeue on.
    """

    option_rules: ClassVar = (rule_of_both("max_age", lambda value: _of_max_age(value)),)
    actor_options = {"max_age"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        max_age_ms = message.options.get("max_age") or broker.actors[message.actor_name].options.get("max_age")
        if not max_age_ms:
            return
        age_ms = now_ms() - _created_ms(message)
        if age_ms >= max_age_ms:
            decide(message, Outcome("expired", "max_age"))
            raise SkipMessage(f"it is {age_ms} ms old, max_age is {max_age_ms:g} ms")


def _created_ms(message: MessageProxy) -> int:
    options = message.options
    if options.get("generation"):
        return int(options.get("enqueued_at", message.message_timestamp))
    return int(message.message_timestamp)


def _of_max_age(value: Any) -> str:
    return "" if is_delay(value) else f"write milliseconds, up to {LONGEST_DELAY_MS}, 0 for no limit"
