"""Rate limits: at most N starts of an actor in any window, over all workers; and limits of what runs at once."""

import re
from hashlib import sha256
from typing import Any, ClassVar

import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import Transport
from switchyard.broker.queue.arguments import in_message
from switchyard.broker.queue.limits import limits_of
from switchyard.broker.shapes import shown_json
from switchyard.broker.stores.limit_counts import RateWindows
from switchyard.middleware.arguments import missing_arguments, signature_of
from switchyard.middleware.errors import MoveFailed
from switchyard.middleware.options import OptionRule
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.middleware.wait_for_broker import retry_until_available


class Concurrency(Middleware):
    """Middleware that validates the limits of actors on what runs at once; workers declare them in their queue.

    Options of an actor: ``concurrency``, such as ``5``, ``"5 per customer_id"``, or a list of both; ``ordered_by``, the
    name of an argument of whose values each is worked off one at a time, in the sequence in which its jobs were sent.

    The broker enforces both as it fetches. A job has its place until its worker has ended it, returned it, or died. A
    retry waits without a place, one that is ordered keeps it.
    """

    option_rules: ClassVar = (
        OptionRule("concurrency", lambda value, actor: _check_limit("concurrency", value, actor)),
        OptionRule("ordered_by", lambda value, actor: _check_limit("ordered_by", value, actor)),
    )
    actor_options = {rule.name for rule in option_rules}


def _check_limit(option: str, value: Any, actor: Actor[..., Any]) -> str:
    try:
        limits = limits_of({option: value})
    except ValueError as error:
        return str(error)
    if not limits:
        return 'write a number such as 5, or "5 per customer_id", or a list of them'
    names = [limit.argument for limit in limits if limit.argument]
    if redacted := [name for name in names if name in (actor.options.get("redact") or ())]:
        return f"{redacted[0]} is in redact, and would be shown; name another argument"
    return missing_arguments(actor, names)


SPEC = re.compile(r"^([1-9][0-9]*)/([smhd])(?: per ([A-Za-z_][A-Za-z0-9_]*))?$")
LONGEST_VALUE = 120
UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Rate(msgspec.Struct, frozen=True):
    """At most ``limit`` starts in any ``window_ms``; of each value of an argument where it is named.

    ``suffix`` tells the windows of several rates by one argument apart.
    """

    limit: int
    window_ms: int
    argument: str = ""
    suffix: str = ""


class RateLimits(Middleware):
    """Middleware that defers a message over its actor's rate limit to a start slot reserved for the message.

    Option of an actor: ``rate_limit``, such as ``"10/m"`` (s, m, h, d), ``"10/m per host"`` for each value of an
    argument, or a list of both; the starts of all messages of an actor count together. While the broker is unavailable
    no job with a limit starts. ``MoveFailed`` where it refuses the call: the message takes the retry path.
    """

    option_rules: ClassVar = (OptionRule("rate_limit", lambda spec, actor: _check_rate(spec, actor)),)
    actor_options = {"rate_limit"}

    def __init__(self, *, windows: RateWindows, transport: Transport) -> None:
        self._windows = windows
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        actor = broker.actors.get(message.actor_name)
        spec = actor.options.get("rate_limit") if actor else None
        if actor is None or spec is None:
            return
        try:
            wanted = message, actor, rates_of(spec)
            try:
                delay_ms = self._reserve(*wanted)
            except BrokerUnavailable:
                delay_ms = retry_until_available(message, "reservation of a start", self._reserve, *wanted)
            if delay_ms == 0:
                return
            how: dict[str, Any] = {"delay_ms": delay_ms, "options": {"deferred_by": "rate_limit"}}
            retry_until_available(message, "rate_limit", self._transport.defer, message, **how)
        except BrokerError as error:
            raise MoveFailed(
                f"actor {message.actor_name}: a message over its limit could not be deferred: {error}"
            ) from error
        decide(message, Outcome("deferred", "rate_limit", delay_ms=delay_ms))
        raise SkipMessage(f"rate_limit {spec}: deferred by {delay_ms} ms")

    def _reserve(self, message: MessageProxy, actor: Actor[..., Any], rates: list[Rate]) -> int:
        """Return the ms until its start under all rates, reserved in each up to the first that delays it."""
        for rate in rates:
            window = name = f"{message.actor_name} {rate.argument}{rate.suffix}".rstrip()
            if rate.argument:
                window = f"{name}={_value_of(message, actor, rate.argument)}"
            how = {"limit": self._windows.limit_of(name, rate.limit), "window_ms": rate.window_ms}
            if delay_ms := self._windows.reserve(window, message.message_id, **how):
                return delay_ms
        return 0


def _value_of(message: MessageProxy, actor: Actor[..., Any], argument: str) -> str:
    """Return the JSON of the value that a message has of an argument; of a long or redacted one its digest."""
    bound = signature_of(actor.fn).bind_partial(*in_message(message).args, **in_message(message).kwargs)
    bound.apply_defaults()
    text = shown_json(bound.arguments.get(argument))
    is_shown = len(text) <= LONGEST_VALUE and argument not in (actor.options.get("redact") or ())
    return text if is_shown else sha256(text.encode()).hexdigest()


def _check_rate(spec: Any, actor: Actor[..., Any]) -> str:
    try:
        rates = rates_of(spec)
    except (TypeError, ValueError):
        rates = []
    if not rates:
        return 'write for example "10/m", or "10/m per host"; units are s, m, h, d'
    return missing_arguments(actor, [rate.argument for rate in rates if rate.argument])


def rates_of(spec: Any) -> list[Rate]:
    """Return the rates of the option, such as ``"10/m"`` or several; ``ValueError`` when one cannot be read."""
    found = []
    for text in spec if isinstance(spec, list | tuple) else [spec]:
        if (match := SPEC.fullmatch(text)) is None:
            raise ValueError(f"rate {text!r} cannot be read; write for example '10/m'")
        found.append(Rate(int(match[1]), UNIT_MS[match[2]], match[3] or ""))
    by = [each.argument for each in found]
    return [
        each if by.count(each.argument) == 1 else msgspec.structs.replace(each, suffix=f"/{each.window_ms // 1_000}s")
        for each in found
    ]
