"""Changed arguments of a dead letter: shown without secrets, validated as those of a new job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import dramatiq
from dramatiq.actor import Actor

from switchyard.broker.errors import ArgumentsRefused, PayloadTooLarge, UnencodablePayload
from switchyard.broker.interface import Arguments, facilities
from switchyard.broker.queue import json_body
from switchyard.broker.queue.arguments import Misfit, argument_types
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import no_such_letter
from switchyard.middleware.arguments import misfit, signature_of
from switchyard.middleware.redaction import HIDDEN, SECRET_NAME, redacted
from switchyard.payload import NUMBERED, by_name, json_value, name_at, places_of, readable

MOST_SHOWN = 200
ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class EditedArguments:
    """Validated arguments.

    Args:
        arguments: Positional ones, and those by name.
        changes: ``from`` and ``to`` by the argument's name, without secrets, for the audit log.
    """

    arguments: Arguments
    changes: dict[str, dict[str, str]]


def editable(row: DeadLetter) -> str:
    """Return a letter's arguments by name, as JSON text to edit; ``[redacted]`` replaces redacted values and secrets.

    Raises:
        NotFound: the broker's dead list does not hold the letter.
        BrokerUnavailable: the broker did not answer.
    """
    letter = _letter(row)
    actor = dramatiq.get_broker().actors.get(letter.actor)
    return json.dumps(_masked(by_name(actor, redacted(actor, letter.message))), indent=2, ensure_ascii=False)


def parse(row: DeadLetter, text: str) -> EditedArguments:
    """Return the arguments in an edited text; where ``[redacted]`` was left, the value stays as it is.

    Raises:
        ArgumentsRefused: the text is no JSON object, does not fit the actor's signature, or is too large.
        NotFound, BrokerUnavailable: as for ``editable``.
    """
    letter = _letter(row)
    actor_name, message = letter.actor, letter.message
    actor = dramatiq.get_broker().actors.get(actor_name)
    if actor is None:
        raise ArgumentsRefused(
            f"arguments: this release has no actor {actor_name}, so they cannot be checked; requeue it unchanged"
        )
    if len(text.encode("utf-8", "surrogatepass")) > json_body.LIMIT_BYTES:
        raise ArgumentsRefused(f"arguments: they are larger than the {json_body.LIMIT_BYTES:,} bytes of a message")
    before = by_name(actor, message)
    values = {name: _unmasked(value, before.get(name, ABSENT), name) for name, value in _parsed(text).items()}
    args, kwargs = _placed(actor, values, len(message["args"]))
    if (wrong := misfit(actor.fn, len(args), kwargs.keys())) is not None:
        raise ArgumentsRefused(f"arguments: {wrong}; the actor is declared as {actor_name}{signature_of(actor.fn)}")
    try:
        argument_types(actor.fn).received(args, kwargs)
    except Misfit as wrong:
        raise ArgumentsRefused(f"arguments: {wrong}") from None
    try:
        json_body.encode({"actor": actor_name, "args": args, "kwargs": kwargs, "options": message["options"]})
    except (PayloadTooLarge, UnencodablePayload) as error:
        raise ArgumentsRefused(f"arguments: {error}") from error
    return EditedArguments((args, kwargs), _changes(actor, message, {**message, "args": args, "kwargs": kwargs}))


def _letter(row: DeadLetter) -> Letter:
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    if letter is None:
        raise no_such_letter(row.message_id)
    return letter


def _parsed(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentsRefused(f"arguments: they are not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ArgumentsRefused('arguments: write them by name: {"name": value, ...}')
    return given


def _placed(actor: Actor[..., Any], values: dict[str, Any], by_place: int) -> Arguments:
    """Return values by name as a call: by place those that were so, and those that cannot be given by name."""
    parameters = signature_of(actor.fn).parameters
    nameless = {each.name for each in parameters.values() if each.kind is each.VAR_POSITIONAL}
    names = places_of(actor)
    rest = dict(values)
    args: list[Any] = []

    def left() -> str:
        return next((name for name in rest if name in nameless or name.startswith(NUMBERED)), "")

    while (name := name_at(names, len(args))) in rest:
        only_by_place = len(args) >= len(names) or parameters[name].kind is Parameter.POSITIONAL_ONLY
        if not (len(args) < by_place or only_by_place or left()):
            break
        args.append(rest.pop(name))
    if left():
        raise ArgumentsRefused(f"arguments: {left()} has a place and no name: {name} is missing before it; write both")
    return args, rest


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: HIDDEN if SECRET_NAME.search(str(name)) else _masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def _unmasked(value: Any, old: Any, path: str) -> Any:
    """Put the old values back where the mask was left."""
    if value == HIDDEN:
        if old is ABSENT:
            raise ArgumentsRefused(
                f"arguments: {path}: {HIDDEN} stands for a value that was hidden, and there was none"
            )
        return old
    if isinstance(value, dict):
        olds = old if isinstance(old, dict) else {}
        return {name: _unmasked(item, olds.get(name, ABSENT), f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        before = list(old) if isinstance(old, list | tuple) else []
        if len(value) < len(before) and HIDDEN in json.dumps(value):
            raise ArgumentsRefused(
                f"arguments: {path}: of {len(before)} values some were left out, "
                "and which of the hidden ones stay is not known; write those as well"
            )
        olds_at = [*before, *[ABSENT] * len(value)]
        return [_unmasked(item, olds_at[n], f"{path}[{n}]") for n, item in enumerate(value)]
    return value


def _changes(actor: Actor[..., Any], old: dict[str, Any], new: dict[str, Any]) -> dict[str, dict[str, str]]:
    before, after = readable(old)["arguments"], readable(new)["arguments"]
    raw_before, raw_after = by_name(actor, old), by_name(actor, new)
    names = [
        name for name in {**raw_before, **raw_after} if raw_before.get(name, ABSENT) != raw_after.get(name, ABSENT)
    ]
    return {
        str(json_value(name))[:MOST_SHOWN]: {"from": _text(before, name), "to": _text(after, name)} for name in names
    }


def _text(shown: dict[str, Any], name: str) -> str:
    if name not in shown:
        return ABSENT
    text = json.dumps(shown[name], ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
