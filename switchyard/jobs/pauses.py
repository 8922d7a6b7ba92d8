"""Pauses of actors: acts, each written to the audit log before it begins; and reads of all pauses.

Every function may raise ``switchyard.broker.errors.BrokerError``. The acts work without the database; their rows are in
the log then.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any, Final

import dramatiq
from dramatiq.actor import Actor
from msgspec.structs import replace

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import LONGEST_REASON, Who, act
from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.queue.administration import pause_actor, resume_actor
from switchyard.broker.queue.limits import note_circuit
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.shapes import ActorPause
from switchyard.console.formatting import unusable_end
from switchyard.jobs.calls import parameters_of, read_value
from switchyard.jobs.queries import families, own_queues
from switchyard.middleware.circuits import Circuits

# Lua reads numbers as floats: others would equal their neighbours.
LARGEST_NUMBER: Final = 2**53
# Stands for the message that failed; no message has this id.
BY_HAND: Final = "-"
BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def chosen(actor: Actor[..., Any], text: str = "") -> ActorPause:
    """Return the pause that a person means by an actor, and by a text such as ``customer_id=7`` or ``month="2026-10"``.

    Raises:
        ActRefused: the actor has no such argument, hides it, or the value is none that can be compared.
    """
    if not text.strip():
        return ActorPause(0, 0, 0, actor.actor_name)
    name, equals, written = (part.strip() for part in text.partition("="))
    parameters = parameters_of(actor)
    found = next((each for each in parameters if each.name == name), None)
    subject = f"argument {text!r:.100}"
    if not equals or not written or found is None:
        known = ", ".join(each.name for each in parameters if not each.redacted)
        fact = f"write NAME=VALUE, with an argument of {actor.actor_name}: {known or 'it has none'}"
        raise ActRefused(subject, fact, by_argument=True)
    if found.redacted:
        raise ActRefused(f"argument {name}", "its actor hides its values; pause by another argument, or all of it")
    try:
        value = read_value(found, written)
    except ValueError as error:
        raise ActRefused(subject, str(error), by_argument=True) from error
    if isinstance(value, (list, dict)) or (type(value) in (int, float) and not abs(value) < LARGEST_NUMBER):
        fact = "a text, true, false, null or a number below 2**53 can be compared; write one"
        raise ActRefused(subject, fact, by_argument=True)
    positions = [each.name for each in parameters if each.kind in BY_POSITION]
    position = positions.index(name) + 1 if name in positions else None
    return ActorPause(0, 0, 0, actor.actor_name, name, position, value)


def pause(wanted: ActorPause, *, who: Who, reason: str = "", until: datetime | None = None) -> bool:
    """Start nothing more of an actor; ``False`` when it was paused already and stays as it was.

    Messages that wait, or become due, are put off, in all queues; what runs goes on, as does what starts within a
    quarter of a second.

    Args:
        until: When it resumes by itself. With it, or with a reason, an earlier pause is changed.

    Raises:
        ActRefused: ``until`` is over by the server's clock, there are too many pauses, or the broker has none.
    """
    until_ms = 0 if until is None else int(until.timestamp() * 1000)
    stored = replace(wanted, until=until_ms, by=who.name, reason=reason[:LONGEST_REASON])
    detail = {} if until is None else {"until": until.isoformat()}
    asked = _families()
    with _act("actor.pause", wanted, who, reason, **detail) as entry:
        try:
            changed = sum(pause_actor(family, stored) for family in asked) > 0
        except ValueError as error:
            raise unusable_end(until.isoformat() if until else "", str(error)) from error
        entry.count = int(changed)
        return changed


def resume(wanted: ActorPause, *, who: Who, reason: str = "") -> bool:
    """Make what a pause has put off due, in its order; ``False`` when there was no such pause.

    The actor's open circuit, or that of the argument's value, is closed as well.
    """
    asked = _families()
    of = (wanted.argument, wanted.value)
    paused = paused_actors(wanted.actor)
    circuits = [each.field for each in paused if each.is_open and (each.argument, each.value) == of]
    with _act("actor.resume", wanted, who, reason) as entry:
        ended = [resume_actor(family, field) for field in (wanted.field, *circuits) for family in asked]
        changed = any(ended)
        entry.count = int(changed)
        return changed


def open_circuit(wanted: ActorPause, *, who: Who, until: datetime | None, reason: str = "") -> bool:
    """Open the circuit of an actor's dependency in its queue until a time: then one job probes it.

    Returns ``False`` when it is open until then or later already. A success of the probe,
    or :func:`resume`, closes it.

    Raises:
        ActRefused: the actor has no such circuit, ``until`` is no time in the future, or too many are open.
    """
    broker = dramatiq.get_broker()
    circuits = next((one for one in broker.middleware if isinstance(one, Circuits)), None)
    circuit = None if circuits is None else circuits.circuit_of(wanted.actor, wanted.argument, wanted.value)
    if circuit is None:
        fact = "has none; declare what it calls with depends_on, or pause it"
        if depends := str(broker.actors[wanted.actor].options.get("depends_on") or ""):
            argument = depends.partition(" per ")[2]
            by = f"by a value of {argument}" if argument else "without an argument"
            fact = f"depends on {depends!r}; choose it {by}"
        raise ActRefused("circuit", f"{wanted.actor} {fact}")
    if until is None or (until_ms := int(until.timestamp() * 1000)) <= now_ms():
        raise unusable_end("" if until is None else until.isoformat(), "an open circuit has an end in the future")
    _families()
    [family] = families(own_queues(broker.actors[wanted.actor]))
    detail = {"dependency": circuit.dependency.name, "until": until.isoformat()}
    with _act("circuit.open", wanted, who, reason, **detail) as entry:
        said = reason[:LONGEST_REASON]
        state = note_circuit(family, circuit, BY_HAND, "failed", until_ms=until_ms, reason=said, by=who.name)
        if state == "closed":
            raise ActRefused("circuit", "too many are open in its queue for which jobs wait; pause the actor")
        entry.count = int(state == "opened")
        return state == "opened"


def _act(name: str, wanted: ActorPause, who: Who, reason: str, **detail: str) -> AbstractContextManager[AuditEntry]:
    actor = wanted.actor
    if wanted.argument:  # the log hides this detail from who may not view arguments
        detail = {"argument": wanted.only, **detail}
    queues = partial(own_queues, dramatiq.get_broker().actors[actor])
    return act(name, who=who, target=actor, reason=reason, detail=detail, essential=False, queues=queues)


def _families() -> Sequence[QueueOperations]:
    if not (found := families()):
        broker = type(dramatiq.get_broker()).__name__
        raise ActRefused("pause", f"a {broker} pauses no actor; stop the pools of its queue, or cancel its jobs")
    return found


def paused_actors(actor: str = "") -> list[ActorPause]:
    """Return the pauses in force and open circuits, of one actor or of all."""
    return [each for each in pauses_in(families()) if not actor or each.stops(actor)]
