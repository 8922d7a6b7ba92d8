"""Rate limits: at most N starts of an actor in any window, over all workers, without spending a retry."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import Transport
from switchyard.broker.stores.limit_counts import RateWindows
from switchyard.middleware.errors import MoveFailed
from switchyard.middleware.options import OptionRule
from switchyard.middleware.outcomes import Outcome, decide

SPEC = re.compile(r"^([1-9][0-9]*)/([smhd])$")
UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Rate(msgspec.Struct, frozen=True):
    """At most ``limit`` starts in any ``window_ms``."""

    limit: int
    window_ms: int


class RateLimits(Middleware):
    """Middleware that defers a message over its actor's rate limit to a start slot reserved for the message.

    Option of an actor: ``rate_limit``, such as ``"10/m"`` (s, m, h, d). A message cannot have a limit of its own: the
    starts of all messages of an actor count together.

    Raises:
        MoveFailed: the broker does not answer or refuses the call; the message takes the retry path, as it must not
            start too early.
    """

    option_rules: ClassVar = (OptionRule("rate_limit", lambda spec, actor: _check_rate(spec)),)
    actor_options = {"rate_limit"}

    def __init__(self, *, windows: RateWindows, transport: Transport) -> None:
        self._windows = windows
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        actor = broker.actors.get(message.actor_name)
        spec = actor.options.get("rate_limit") if actor else None
        if spec is None:
            return
        rate = rate_of(spec)
        try:
            delay_ms = self._windows.reserve(
                message.actor_name, message.message_id, limit=rate.limit, window_ms=rate.window_ms
            )
            if delay_ms == 0:
                return
            self._transport.defer(message, delay_ms=delay_ms, options={"deferred_by": "rate_limit"})
        except BrokerError as error:
            raise MoveFailed(
                f"actor {message.actor_name}: a message over its limit could not be deferred: {error}"
            ) from error
        decide(message, Outcome("deferred", "rate_limit", delay_ms=delay_ms))
        raise SkipMessage(f"rate_limit {spec}: deferred by {delay_ms} ms")


def _check_rate(spec: Any) -> str:
    readable = isinstance(spec, str) and SPEC.fullmatch(spec)
    return "" if readable else 'write for example "10/m"; units are s, m, h, d'


def rate_of(spec: str) -> Rate:
    """Return the rate of a text such as ``"10/m"``; ``ValueError`` when it cannot be read."""
    match = SPEC.match(spec)
    if match is None:
        raise ValueError(f"rate {spec!r} cannot be read; write for example '10/m'")
    return Rate(int(match[1]), UNIT_MS[match[2]])
