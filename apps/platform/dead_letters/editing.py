"""Changed arguments for the requeue of one dead letter: shown without secrets, validated as those of a new job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import dramatiq

from apps.platform.dead_letters.errors import ArgumentsRefused, UnknownDeadLetter
from apps.platform.dead_letters.models import DeadLetter
from apps.platform.payload import json_value, readable
from broker.errors import PayloadTooLarge, UnencodablePayload
from broker.interface import Arguments, facilities
from broker.queue import json_body
from broker.shapes import DeadLetter as Letter
from middleware.arguments import misfit, signature_of
from middleware.redaction import HIDDEN, SECRET_NAME, redacted

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
    """Return a letter's arguments as JSON text to edit; redacted values and secrets are replaced by ``[redacted]``.

    Raises:
        UnknownDeadLetter: the broker's dead list does not hold the letter.
        BrokerUnavailable: the broker did not answer.
    """
    letter = _letter(row)
    actor = dramatiq.get_broker().actors.get(letter.actor)
    shown = redacted(actor, letter.message)
    return json.dumps(
        {"args": _masked(shown["args"]), "kwargs": _masked(shown["kwargs"])}, indent=2, ensure_ascii=False
    )


def parse(row: DeadLetter, text: str) -> EditedArguments:
    """Return the arguments in an edited text; where ``[redacted]`` was left, the value stays as it is.

    Raises:
        ArgumentsRefused: the text is no JSON of that form, does not fit the actor's signature, or is too large.
        UnknownDeadLetter, BrokerUnavailable: as for ``editable``.
    """
    letter = _letter(row)
    actor = dramatiq.get_broker().actors.get(letter.actor)
    if actor is None:
        raise ArgumentsRefused(
            f"this release has no actor {letter.actor}, so they cannot be checked; requeue it unchanged"
        )
    if len(text.encode("utf-8", "surrogatepass")) > json_body.LIMIT_BYTES:
        raise ArgumentsRefused(f"they are larger than the {json_body.LIMIT_BYTES:,} bytes of a message")
    given = _parsed(text)
    old = letter.message
    args = _unmasked(given["args"], old["args"], "args")
    kwargs = _unmasked(given["kwargs"], old["kwargs"], "kwargs")
    if (wrong := misfit(actor.fn, len(args), kwargs.keys())) is not None:
        raise ArgumentsRefused(f"{wrong}; the actor is declared as {letter.actor}{signature_of(actor.fn)}")
    try:
        json_body.encode({"actor": letter.actor, "args": args, "kwargs": kwargs, "options": old["options"]})
    except (PayloadTooLarge, UnencodablePayload) as error:
        raise ArgumentsRefused(str(error)) from error
    new = {**old, "args": args, "kwargs": kwargs}
    return EditedArguments((args, kwargs), _changes(old, new))


def _letter(row: DeadLetter) -> Letter:
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    if letter is None:
        raise UnknownDeadLetter(row.message_id)
    return letter


def _parsed(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentsRefused(f"they are no JSON: {error}") from error
    is_whole = isinstance(given, dict) and given.keys() == {"args", "kwargs"}
    if not is_whole or not isinstance(given["args"], list) or not isinstance(given["kwargs"], dict):
        raise ArgumentsRefused('write {"args": [...], "kwargs": {...}}, with nothing beside the two')
    return dict(given)


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
            raise ArgumentsRefused(f"{path}: {HIDDEN} stands for a value that was hidden, and there was none")
        return old
    if isinstance(value, dict):
        olds = old if isinstance(old, dict) else {}
        return {name: _unmasked(item, olds.get(name, ABSENT), f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        before = list(old) if isinstance(old, list | tuple) else []
        olds_at = [*before, *[ABSENT] * len(value)]
        return [_unmasked(item, olds_at[n], f"{path}[{n}]") for n, item in enumerate(value)]
    return value


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, dict[str, str]]:
    before, after = readable(old)["arguments"], readable(new)["arguments"]
    raw_before, raw_after = _by_name(old), _by_name(new)
    names = [
        name for name in {**raw_before, **raw_after} if raw_before.get(name, ABSENT) != raw_after.get(name, ABSENT)
    ]
    return {
        str(json_value(name))[:MOST_SHOWN]: {"from": _text(before, name), "to": _text(after, name)} for name in names
    }


def _by_name(message: dict[str, Any]) -> dict[str, Any]:
    actor = dramatiq.get_broker().actors[message["actor_name"]]
    names = list(signature_of(actor.fn).parameters)
    return {
        names[place] if place < len(names) else f"argument {place + 1}": value
        for place, value in enumerate(message["args"])
    } | message["kwargs"]


def _text(shown: dict[str, Any], name: str) -> str:
    if name not in shown:
        return ABSENT
    text = json.dumps(shown[name], ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
