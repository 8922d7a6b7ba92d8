"""The OpenAPI document as rows for the page that people read: operations by tag, fields of bodies, types in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

METHODS = ("get", "post", "put", "patch", "delete")
REFERENCE = "#/components/schemas/"
# Types of one field that a caller reads: fields of fields are in the document itself.
DEPTH = 3
# The marks that descriptions use: `code` and [text](address).
MARKS = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((https://[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class ReferenceField:
    """A parameter, or a field of a body.

    Args:
        name: With the names of the fields it is in: ``error.type``.
        place: ``path``, ``query`` or ``header``; "" for a field.
    """

    name: str
    type: str
    required: bool
    description: SafeString
    place: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceBody:
    """A request's or a response's body of one content type."""

    content_type: str
    fields: tuple[ReferenceField, ...]


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """A response."""

    status: str
    description: SafeString
    bodies: tuple[ReferenceBody, ...]

    @property
    def refuses(self) -> bool:
        """Return whether it is a refusal."""
        return self.status >= "4"


@dataclass(frozen=True, slots=True)
class ReferenceOperation:
    """One method of one path."""

    id: str
    method: str
    path: str
    title: str
    description: SafeString
    scopes: tuple[str, ...]
    parameters: tuple[ReferenceField, ...]
    bodies: tuple[ReferenceBody, ...]
    answers: tuple[ReferenceAnswer, ...]
    example: str

    @property
    def refusals(self) -> tuple[ReferenceAnswer, ...]:
        """Return the refusals among the answers."""
        return tuple(answer for answer in self.answers if answer.refuses)

    @property
    def successes(self) -> tuple[ReferenceAnswer, ...]:
        """Return the other answers."""
        return tuple(answer for answer in self.answers if not answer.refuses)


@dataclass(frozen=True, slots=True)
class ReferenceSection:
    """The operations of one tag."""

    name: str
    operations: list[ReferenceOperation] = field(default_factory=list)


class Reference:
    """Reader of an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._schemas: dict[str, Any] = document.get("components", {}).get("schemas", {})
        self._document = document

    def sections(self) -> list[ReferenceSection]:
        """Return the operations by tag, in the document's order."""
        found: dict[str, ReferenceSection] = {}
        for path, operations in self._document["paths"].items():
            for method in METHODS:
                if method in operations:
                    details = operations[method]
                    tag = (details.get("tags") or ["Other"])[0]
                    found.setdefault(tag, ReferenceSection(tag)).operations.append(
                        self._operation(method, path, details)
                    )
        return list(found.values())

    def fields(self, schema: dict[str, Any]) -> tuple[ReferenceField, ...]:
        """Return the fields of a body, with those of objects in it."""
        return tuple(self._fields(schema, "", DEPTH))

    def type_of(self, schema: dict[str, Any]) -> str:
        """Return a schema's type in words."""
        if (name := _name(schema)) is not None:
            return self.type_of(self._schemas[name])
        if choices := schema.get("enum"):
            return "one of " + ", ".join(json.dumps(choice) for choice in choices)
        if "const" in schema:
            return json.dumps(schema["const"])
        if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            return " or ".join(dict.fromkeys(self.type_of(option) for option in options))
        if schema.get("type") == "array":
            return f"list of {self.type_of(schema.get('items', {}))}"
        kind = schema.get("format") or schema.get("type") or "anything"
        return f"{kind}{_bounds(schema)}"

    def _operation(self, method: str, path: str, details: dict[str, Any]) -> ReferenceOperation:
        bodies = self._bodies(details.get("requestBody") or {})
        return ReferenceOperation(
            id=details["operationId"],
            method=method.upper(),
            path=path,
            title=str(details.get("summary", path)).capitalize(),
            description=marked_up(details.get("description", "")),
            scopes=tuple(scope for way in details.get("security") or () for scopes in way.values() for scope in scopes),
            parameters=tuple(
                ReferenceField(
                    parameter["name"],
                    self.type_of(parameter["schema"]),
                    bool(parameter.get("required")),
                    marked_up(parameter.get("description", "")),
                    parameter["in"],
                )
                for parameter in details.get("parameters", ())
            ),
            bodies=bodies,
            answers=tuple(
                ReferenceAnswer(str(status), marked_up(answer.get("description", "")), self._bodies(answer))
                for status, answer in details["responses"].items()
            ),
            example=self._example(method.upper(), path, details, bodies),
        )

    def _bodies(self, holder: dict[str, Any]) -> tuple[ReferenceBody, ...]:
        return tuple(
            ReferenceBody(content_type, self.fields(content.get("schema", {})))
            for content_type, content in (holder.get("content") or {}).items()
        )

    def _fields(self, schema: dict[str, Any], prefix: str, depth: int) -> Iterator[ReferenceField]:
        found = self._object_in(schema)
        if found is None or depth == 0:
            return
        required = found.get("required", ())
        for name, inner in found.get("properties", {}).items():
            described = marked_up(inner.get("description") or "")
            yield ReferenceField(f"{prefix}{name}", self.type_of(inner), name in required, described)
            yield from self._fields(inner, f"{prefix}{name}.", depth - 1)

    def _object_in(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """Return the object that a schema is, names, lists or offers beside null."""
        if (name := _name(schema)) is not None:
            return self._object_in(self._schemas[name])
        if "properties" in schema:
            return schema
        for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            if (found := self._object_in(inner)) is not None:
                return found
        return self._object_in(schema["items"]) if isinstance(schema.get("items"), dict) else None

    def _example(self, method: str, path: str, details: dict[str, Any], bodies: tuple[ReferenceBody, ...]) -> str:
        lines = [f'curl -X {method} "$SITE{path}"']
        if details.get("security"):
            lines.append('-H "Authorization: Bearer $TOKEN"')
        if body := next((body for body in bodies if body.content_type == "application/json"), None):
            content = {entry.name: _sample(entry) for entry in body.fields if entry.required and "." not in entry.name}
            lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(content)}'"]
        return " \\\n  ".join(lines)


def marked_up(text: str) -> SafeString:
    """Return a description's text as HTML, with its code and links."""
    parts, at = [], 0
    for found in MARKS.finditer(text):
        code, label, address = found.groups()
        parts.append(format_html("{}", text[at : found.start()]))
        if code:
            parts.append(format_html('<code class="sy-code">{}</code>', code))
        else:
            parts.append(format_html('<a class="sy-link" href="{}">{}</a>', address, label))
        at = found.end()
    return format_html_join("", "{}", ((part,) for part in (*parts, text[at:])))


def _name(schema: dict[str, Any]) -> str | None:
    reference = schema.get("$ref", "")
    return reference.removeprefix(REFERENCE) if reference.startswith(REFERENCE) else None


def _bounds(schema: dict[str, Any]) -> str:
    parts = []
    for word, low, high in (("", "minimum", "maximum"), (" characters", "minLength", "maxLength")):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            parts.append(f"{least:,} to {most:,}{word}")
        elif most is not None:
            parts.append(f"at most {most:,}{word}")
        elif least is not None:
            parts.append(f"at least {least:,}{word}")
    return f", {', '.join(parts)}" if parts else ""


def _sample(entry: ReferenceField) -> Any:
    if entry.type.startswith("one of "):
        return json.loads(entry.type.removeprefix("one of ").partition(", ")[0])
    if entry.type.startswith(("integer", "number")):
        return 1
    return [] if entry.type.startswith("list") else {} if entry.type.startswith("object") else "…"
