"""Actors that declare ``public=True``: what tokens may send through the HTTP API, and its JSON Schema."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Final

import dramatiq
import msgspec
from dramatiq.actor import Actor

from switchyard.broker.errors import NotFound
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.jobs.calls import ActorParameter, parameters_of

SCHEMAS: Final = "#/components/schemas/"
DELAY_MS: Final = {"type": "integer", "minimum": 0, "maximum": LONGEST_DELAY_MS}
Schema = dict[str, Any]


def public_actors() -> dict[str, Actor[..., Any]]:
    found = sorted(dramatiq.get_broker().actors.items())
    return {name: actor for name, actor in found if actor.options.get("public")}


def find_public(name: str) -> Actor[..., Any]:
    """Return a public actor; ``NotFound`` when there is none of this name, also for an actor that is not public."""
    found = public_actors()
    if name not in found:
        raise NotFound(f"actor {name:.200}: no public actor has this name; public are {', '.join(found) or 'none'}")
    return found[name]


def body_of_calls() -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of a job that is sent, one alternative for each public actor, and the schemas that it names.

    Both are empty where no actor is public.
    """
    named: dict[str, Schema] = {}
    calls: dict[str, str] = {}
    for name, actor in public_actors().items():
        key = "Job." + re.sub(r"\W", lambda found: f"-{ord(found[0]):x}-", name, flags=re.ASCII)
        arguments = _arguments(actor, key, named)
        named[f"{key}.Arguments"], calls[name] = arguments, SCHEMAS + key
        named[key] = {
            "title": key,
            "type": "object",
            "description": (actor.fn.__doc__ or "").strip().partition("\n")[0],
            "properties": {
                "actor": {"const": name, "type": "string"},
                "arguments": {"$ref": f"{SCHEMAS}{key}.Arguments"},
                "delay_ms": DELAY_MS,
            },
            "required": ["actor", "arguments"] if arguments["required"] else ["actor"],
            "additionalProperties": False,
        }
    if not calls:
        return {}, {}
    alternatives = [{"$ref": each} for each in calls.values()]
    return {"oneOf": alternatives, "discriminator": {"propertyName": "actor", "mapping": calls}}, named


def _arguments(actor: Actor[..., Any], key: str, named: dict[str, Schema]) -> Schema:
    """Return the schema of an actor's arguments by name; classes that it names are added to the named schemas."""
    parameters = parameters_of(actor)
    template = f"{SCHEMAS}{key}.{{name}}"
    schemas, classes = msgspec.json.schema_components(
        [each.value_type for each in parameters], schema_hook=_of_class, ref_template=template
    )
    named |= {f"{key}.{name}": schema for name, schema in classes.items()}
    return {
        "title": f"{key}.Arguments",
        "type": "object",
        "properties": {each.name: _property(each, one) for each, one in zip(parameters, schemas, strict=True)},
        "required": [each.name for each in parameters if each.required],
        "additionalProperties": False,
    }


def _property(parameter: ActorParameter, schema: Schema) -> Schema:
    found = schema | ({"default": json.loads(parameter.default)} if parameter.default else {})
    return found | ({"writeOnly": True} if parameter.redacted else {})


def _of_class(kind: type) -> Schema:
    """Return the schema of a class that msgspec does not know: Django's choices; any other counts as no annotation."""
    return {"enum": [member.value for member in kind]} if issubclass(kind, Enum) else {}
