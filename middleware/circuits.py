"""Circuits: when a dependency of actors is down, their messages wait for it, unstarted, and one at a time probes it."""

import re
import socket
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware, SkipMessage, TimeLimitExceeded

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, NotFound
from switchyard.broker.interface import Transport
from switchyard.broker.queue.arguments import in_message
from switchyard.broker.queue.limits import Circuit, position_of
from switchyard.broker.shapes import ActorPause
from switchyard.broker.topology import Dependency, Yard
from switchyard.loggers import get_logger
from switchyard.middleware.arguments import missing_arguments
from switchyard.middleware.errors import RetryLater
from switchyard.middleware.options import OptionRule
from switchyard.middleware.outcomes import Outcome, decide

log = get_logger(__name__)

SPEC: Final = re.compile(r"([a-z0-9_.-]{1,64})(?: per ([A-Za-z_][A-Za-z0-9_]*))?")
# A probe may wait for a slot, and its hooks for the broker.
LEASE_MORE_MS: Final = 5_000
# Errors of files are ``OSError`` too.
OF_FILES: Final = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
LARGEST: Final = 2**53


def calls_host(host: str) -> None:
    """Count the call of the attempt that runs here for a host of its dependency too; the last host that is named."""
    if (message := CurrentMessage.get_current_message()) is not None:
        message.called_host = host  # type: ignore[attr-defined]


class _Call(msgspec.Struct, frozen=True):
    """The dependency of an actor, with the argument (and its position, 0 for none) by whose value it is one of many."""

    dependency: Dependency
    argument: str
    calls: Mapping[str, int]
    lease_ms: int
    outage: tuple[type[BaseException], ...] | None


class Circuits(Middleware):
    """Middleware that stops the messages of actors whose dependency is down.

    Options of an actor: ``depends_on``, the name of a :class:`switchyard.broker.topology.Dependency`, or
    ``"webhook per endpoint_id"`` for one circuit for each value of an argument; ``outage``, exception classes that
    count as a failure of it (by default connections that fail, timeouts, HTTP 5xx and time limits).

    While the circuit is open the broker puts off what would be fetched; what was fetched before does not start, or
    spends no attempt if it fails. A probe is an attempt.
    """

    actor_options = {"depends_on", "outage"}

    def __init__(self, *, yard: Yard, transport: Transport) -> None:
        self._yard, self._transport = yard, transport
        self._calls: dict[str, _Call] = {}
        self.option_rules = (OptionRule("depends_on", self._check), OptionRule("outage", _of_outage))

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Find the actors with the same circuit in its queue: they are stopped together."""
        self._calls.pop(actor.actor_name, None)
        if "depends_on" not in actor.options:
            return
        dependency, _, argument = actor.options["depends_on"].partition(" per ")
        queue = self._yard.queue_of(actor.queue_name)
        lease_ms = queue.hard_limit_ms + LEASE_MORE_MS
        same = [
            each
            for each in [*broker.actors.values(), actor]
            if each.options.get("depends_on") == actor.options["depends_on"]
            and self._yard.queue_of(each.queue_name) is queue
        ]
        calls = {each.actor_name: position_of(each, argument) for each in same}
        for each in same:
            outage = tuple(each.options.get("outage") or ()) or None
            self._calls[each.actor_name] = _Call(self._yard.dependency(dependency), argument, calls, lease_ms, outage)

    def circuit_of(self, actor: str, argument: str, value: Any) -> Circuit | None:
        """Return the circuit of an actor for a value of an argument, "" for none; ``None`` where it has no such one."""
        call = self._calls.get(actor)
        if call is None or call.argument != argument:
            return None
        return Circuit(call.dependency, call.lease_ms, call.calls, argument, value)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        call = self._calls.get(message.actor_name)
        if call is None or (circuit := _circuit(call, message)) is None:
            return
        try:
            state = self._transport.circuit_stops(message, circuit)
        except BrokerError:  # counted at its end, if the broker is there then
            state = ""
        if state == "stopped":
            decide(message, Outcome("deferred", "circuit_open"))
            raise SkipMessage(f"{call.dependency.name}: its circuit is open")
        message.circuit = circuit, state == "probe"  # type: ignore[attr-defined]

    def defers(self, broker: Broker, message: MessageProxy, exception: BaseException | None) -> str:
        """Count the end of an attempt; return why its message waits without one, "" when it ends as it is.

        Called by :class:`switchyard.middleware.retries.Retries`, which decides the outcome.
        """
        circuit, probed = getattr(message, "circuit", None) or (None, False)
        try:
            if isinstance(exception, RetryLater) and exception.per:
                return self._pause(broker, message, circuit, exception)
            return "" if circuit is None else self._count(message, circuit, exception, probed)
        except BrokerError as error:
            log.warning("call not counted for its circuit", job_id=message.message_id, error=str(error))
            return ""

    def _count(self, message: MessageProxy, circuit: Circuit, exception: BaseException | None, probed: bool) -> str:
        outcome = "ok" if exception is None else "other"
        if exception is not None and _is_outage(exception, self._calls[message.actor_name].outage):
            outcome = "failed"
        if outcome != "other":
            message.called = circuit.dependency.name, "failed" if outcome == "failed" else "answered"  # type: ignore[attr-defined]
        elif not probed:
            return ""
        reason = type(exception).__name__  # its text may hold arguments
        state = self._transport.note_circuit(message, circuit, outcome, reason=reason)
        self._tell(message, circuit, state)
        return "circuit_open" if state == "open" else ""

    def _pause(self, broker: Broker, message: MessageProxy, circuit: Circuit | None, exception: RetryLater) -> str:
        """Stop all that the failed call speaks for, until the time that it named."""
        until_ms, per = now_ms() + int(exception.delay or 0), exception.per
        reason = type(exception).__name__
        if circuit is not None and per in (circuit.argument, circuit.dependency.name):
            state = self._transport.note_circuit(message, circuit, "failed", until_ms=until_ms, reason=reason)
            self._tell(message, circuit, state)
            return "circuit_open" if state in ("opened", "open") else ""
        position = position_of(broker.actors[message.actor_name], per)
        usable, value = _value(message, per, position)
        if not usable:
            log.error("RetryLater names no argument to wait for", job_id=message.message_id, per=per)
            return ""
        pause = ActorPause(0, until_ms, 0, message.actor_name, per, position or None, value, "RetryLater", reason)
        return "actor_paused" if self._transport.pause_for(message, pause) else ""

    def _tell(self, message: MessageProxy, circuit: Circuit, state: str) -> None:
        if state == "opened":
            message.circuit_opened = circuit.dependency.name  # type: ignore[attr-defined]
            log.warning("circuit opened", dependency=circuit.dependency.name, queue=message.queue_name)

    def _check(self, value: Any, actor: Actor[..., Any]) -> str:
        written = SPEC.fullmatch(value) if isinstance(value, str) else None
        if written is None:
            return 'write the name of a dependency, such as "payments", or "webhook per endpoint_id"'
        try:
            self._yard.dependency(written[1])
        except NotFound as error:
            return f"{error}: add Dependency({written[1]!r}) to dependencies of its Yard"
        if written[2] is None:
            return ""
        if written[2] in (actor.options.get("redact") or ()):
            return f"{written[2]} is in redact, and would be shown; name another argument"
        return missing_arguments(actor, [written[2]])


def _of_outage(value: Any, actor: Actor[..., Any]) -> str:
    classes = isinstance(value, tuple) and all(isinstance(one, type) and issubclass(one, Exception) for one in value)
    if not classes or not value:
        return "write a tuple of exception classes, such as outage=(ConnectionError,)"
    return "" if "depends_on" in actor.options else "write depends_on=... beside it, or leave it out"


def _circuit(call: _Call, message: MessageProxy) -> Circuit | None:
    """Return the circuit of a message; ``None`` where its argument's value is none that can be compared."""
    place = call.calls[message.actor_name]
    usable, value = _value(message, call.argument, place) if call.argument else (True, None)
    return Circuit(call.dependency, call.lease_ms, call.calls, call.argument, value) if usable else None


def _value(message: MessageProxy, argument: str, position: int) -> tuple[bool, Any]:
    sent = in_message(message)
    if argument in sent.kwargs:
        value = sent.kwargs[argument]
    elif 0 < position <= len(sent.args):
        value = sent.args[position - 1]
    else:
        return False, None
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < LARGEST), value


def _is_outage(exception: BaseException, declared: tuple[type[BaseException], ...] | None) -> bool:
    if declared is not None:
        return isinstance(exception, (*declared, TimeLimitExceeded))
    # As requests and httpx name it, and urllib.
    status = getattr(getattr(exception, "response", None), "status_code", getattr(exception, "code", None))
    if isinstance(status, int):
        return status >= 500
    return isinstance(exception, TimeLimitExceeded | ConnectionError | TimeoutError | socket.gaierror) or (
        isinstance(exception, OSError) and not isinstance(exception, OF_FILES)
    )
