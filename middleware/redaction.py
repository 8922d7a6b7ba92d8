"""Redaction: arguments that an actor names in ``redact``, and probable secrets in text, are never shown."""

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from switchyard.broker.queue.arguments import Misfit, argument_types, leaves
from switchyard.middleware.arguments import missing_arguments, signature_of
from switchyard.middleware.options import OptionRule

HIDDEN = "[redacted]"
# Shorter values occur in every line, and are no secrets.
SHORTEST_SECRET = 4

SECRET_NAME = re.compile(r"passw|secret|token|authori[sz]ation|api_?key|credential|cookie", re.IGNORECASE)
# Each pattern takes about linear time: logs contain untrusted text, and the process that reads them renews a pool's
# leases. A name is matched once, from its start, by possessive quantifiers (`+`), which never backtrack.
_NAME = rf"(?<![\w.-])(?=[\w.-]*?(?:{SECRET_NAME.pattern}))[\w.-]++"
_VALUE = r"""\\"[^"]*+"?|"(?:[^"\\]|\\.)*+"?|'[^']*+'?|\[[^\]]*+\]?|\{[^}]*+\}?|[^\s,;&}\])]+"""
_NAMED = re.compile(rf"""({_NAME}\\?["']?\s*+[:=]\s*+)({_VALUE})""", re.IGNORECASE)
_SCHEME = re.compile(r"\b(Bearer|Basic|(?<=: )Token)\s++[\w.~+/=-]++", re.IGNORECASE)
_USER = re.compile(r"(://)[^/\s]*@")
# One without a query matches too: the search goes on behind it, and not at each "://" in it.
_ADDRESS = re.compile(r"(\w://[^\s?\"']++)(\?[^\s\"']++)?")


class Redaction(Middleware):
    """Option ``redact``, of actors alone: names of arguments that pages, commands and rows must not show."""

    option_rules: ClassVar = (OptionRule("redact", lambda names, actor: _check_names(names, actor)),)
    actor_options = {"redact"}

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Keep Dramatiq's debug record of a call, with the arguments, out of the project's log."""
        if actor.options.get("redact"):
            actor.logger.addFilter(lambda record: not str(record.msg).startswith("Received args="))


def _check_names(names: Any, actor: Actor[..., Any]) -> str:
    parameters = list(signature_of(actor.fn).parameters) or ["to"]
    named = names if names in parameters else parameters[0]
    remedy = f'write a tuple of argument names, such as redact=("{named}",)'
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return remedy
    missing = missing_arguments(actor, names)
    return f"{remedy}; {missing}" if missing else ""


def redacted(actor: Actor[..., Any] | None, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload (``args``, ``kwargs``) with the actor's redacted arguments hidden; of no actor, with all."""
    names, places = _hidden(actor, payload)
    return {
        **payload,
        "args": [HIDDEN if place in places else value for place, value in enumerate(payload["args"])],
        "kwargs": {name: HIDDEN if name in names else value for name, value in payload["kwargs"].items()},
    }


def without_secrets(text: str) -> str:
    """Return a text without values that are named like secrets, and without users and queries of URLs."""
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    text = _ADDRESS.sub(lambda found: f"{found[1]}?{HIDDEN}" if found[2] else found[0], text)
    return _NAMED.sub(rf"\1{HIDDEN}", text)


def without_arguments(actor: Actor[..., Any] | None, payload: dict[str, Any], text: str) -> str:
    """Return a text without the values of a message's redacted arguments, plain or as JSON and Python write them."""
    names, places = _hidden(actor, payload)
    hidden = [payload["args"][place] for place in places if place < len(payload["args"])]
    hidden += [payload["kwargs"][name] for name in names if name in payload["kwargs"]]
    hidden += _typed(actor, payload, names, places)
    secrets = {form for value in hidden for text in _texts(value) for form in _written(text)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _typed(actor: Actor[..., Any] | None, payload: dict[str, Any], names: set[str], places: set[int]) -> list[Any]:
    """Return the redacted values that the actor got in place of JSON: a log may have them as Python writes them."""
    if actor is None or not names or not (types := argument_types(actor.fn)).is_typed:
        return []
    try:
        args, kwargs = types.received(payload["args"], payload["kwargs"])
    except Misfit:
        return []
    got = [args[place] for place in places if place < len(args)] + [kwargs[name] for name in names if name in kwargs]
    return [form for value in got for form in (value, leaves(value))]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif len(text := str(value)) >= SHORTEST_SECRET:
        yield text
        if not isinstance(value, str):
            yield repr(value)


def _written(text: str) -> tuple[str, ...]:
    """Return the forms in which a log may hold a text."""
    return text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]


def _hidden(actor: Actor[..., Any] | None, payload: dict[str, Any]) -> tuple[set[str], set[int]]:
    if actor is None:
        return set(payload["kwargs"]), set(range(len(payload["args"])))
    names, kwargs = set(actor.options.get("redact", ())), payload["kwargs"]
    parameters, places = signature_of(actor.fn).parameters, set()
    for place, each in enumerate(parameters.values()):
        if each.name not in names:
            continue
        if each.kind is each.VAR_KEYWORD:
            names |= kwargs.keys() - parameters.keys()
        else:
            places |= set(range(place, len(payload["args"]))) if each.kind is each.VAR_POSITIONAL else {place}
    return names, places
