"""Crashes: what may take its worker down runs alone, and what did so three times is set aside."""

from __future__ import annotations

from functools import partial

import structlog
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, MiddlewareError, SkipMessage, TimeLimitExceeded

from broker.errors import SwitchyardError
from broker.interface import Transport
from middleware.away import hold
from middleware.envelope import now_ms
from middleware.outcomes import Outcome, decide

log = structlog.get_logger(__name__)

MOST_CRASHES = 3


class Poison(SwitchyardError, MiddlewareError):
    """A message that took its worker down three times within 72 hours."""

    def __init__(self, actor_name: str, crashes: int, cause: str) -> None:
        super().__init__(
            f"actor {actor_name}: this message took its worker down {crashes} times, last {cause or 'unseen'}; "
            "requeue it when the cause is mended"
        )


class HardLimitExceeded(SwitchyardError, MiddlewareError, TimeLimitExceeded):
    """The worker that ran a message was killed, because the message ran past its queue's hard limit."""

    def __init__(self, actor_name: str, cause: str) -> None:
        super().__init__(f"actor {actor_name}: its worker was killed at the hard {cause}; a soft limit did not end it")


class Crashes(Middleware):
    """Decide about a message whose last worker died, before it runs again.

    A supervisor counts and notes such deaths with the message. Killed for its hard limit, the attempt is over and takes
    the retry path. Any other is set apart, to run in a worker that has a single slot: neighbours are neither harmed nor
    suspected again, and a crash there is certainly its own. With the third it becomes a dead letter (``poison``).
    """

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let a message run, or not.

        Raises:
            HardLimitExceeded: its attempt ended with its worker.
            Poison: it crashed for the third time.
        """
        crashes, cause = getattr(message, "crashes", 0), getattr(message, "cause", "")
        if not crashes and not cause:
            return
        if cause.startswith("limit"):
            message.started_ms = now_ms()  # type: ignore[attr-defined]
            raise HardLimitExceeded(message.actor_name, cause)
        if crashes >= MOST_CRASHES:
            message.started_ms = now_ms()  # type: ignore[attr-defined]
            raise Poison(message.actor_name, crashes, cause)
        if getattr(broker, "slots", 1) == 1:
            return
        if hold(partial(self._transport.isolate, message), job_id=message.message_id, what="a run alone"):
            log.info("runs alone", job_id=message.message_id, actor=message.actor_name, crashes=crashes, cause=cause)
            decide(message, Outcome("deferred", "alone"))
            raise SkipMessage("it runs alone, because it may take its worker down")
