"""Parsing of request bodies: strict JSON, and text that every database can store."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn, TypeVar, cast

import pydantic
from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from ninja.parser import Parser

from switchyard.api.problems import FieldError, Problem

JSON_TYPE = "application/json"
MAX_DEPTH = 64
MAX_ERRORS = 50
MAX_NAME_CHARACTERS = 100
MAX_PATH_CHARACTERS = 300
# Replacements for pydantic's messages, which use Python terms.
MESSAGES = {"extra_forbidden": "is not a known field; leave it out", "missing": "is required"}

S = TypeVar("S", bound=pydantic.BaseModel)


def read_json(request: HttpRequest, schema: type[S]) -> S:
    """Read a request's JSON body into a schema, or ``Problem``; for views that also take other kinds of bodies."""
    try:
        return schema.model_validate(decode_request(request))
    except pydantic.ValidationError as error:
        raise invalid(field_errors(error)) from error


def decode_request(request: HttpRequest) -> Any:
    """Return a request's JSON body as Python values, or ``Problem`` 400, 415 or 422. Names must not repeat."""
    # None: a part of a multipart body has no content type of its own.
    if request.content_type is not None and request.content_type != JSON_TYPE:
        raise Problem(
            415,
            f"the content type is {request.content_type[:80] or 'not given'!r}; send {JSON_TYPE}",
            headers={"Accept": JSON_TYPE},
        )
    if not request.body.strip():
        raise Problem(400, "the body is empty; send a JSON object")
    try:
        # Text, not bytes: from bytes json accepts UTF-16, UTF-32 and lone surrogates as well.
        text = request.body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
    except RecursionError as error:
        raise Problem(400, f"the body is nested deeper than {MAX_DEPTH} levels; flatten it") from error
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {_reason(error)}; send a JSON object in UTF-8") from error
    refuse_bad_text(value)
    return value


def refuse_bad_text(value: Any) -> None:
    """Refuse text that databases cannot store: ``Problem`` 422 with the first 50 fields, 400 when nested too deep."""
    errors = [FieldError(path, message) for path, message in islice(_bad_text(value, "", 0), MAX_ERRORS)]
    if errors:
        raise invalid(errors)


def field_errors(error: pydantic.ValidationError, *, skip: int = 0) -> list[FieldError]:
    """Return pydantic's errors by field, without the first ``skip`` parts of each location."""
    return [
        FieldError(
            field=".".join(str(part)[:MAX_NAME_CHARACTERS] for part in found["loc"][skip:]),
            message=MESSAGES.get(found["type"], found["msg"][:1].lower() + found["msg"][1:]),
        )
        for found in error.errors(include_url=False, include_input=False)
    ]


def invalid(errors: list[FieldError]) -> Problem:
    """Return the 422 for invalid fields; a long list is truncated."""
    first = errors[0]
    subject = f"{first.field}: {first.message}" if first.field else f"the body {first.message}"
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem(422, f"{subject}{more}", errors=errors[:MAX_ERRORS], type="urn:switchyard:problem:validation")


class StrictParser(Parser):
    """django-ninja's parser with the checks of this module."""

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        return cast("dict[str, Any]", decode_request(request))

    def parse_querydict(
        self, data: MultiValueDict[str, Any], list_fields: list[str], request: HttpRequest
    ) -> dict[str, Any]:
        values = super().parse_querydict(data, list_fields, request)
        refuse_bad_text(values)
        return values


def _bad_text(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH:
        raise Problem(400, f"the body is nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(value, str):
        if "\0" in value:
            yield path, "has a NUL character; remove it"
        elif any("\ud800" <= character <= "\udfff" for character in value):
            yield path, "has half of a surrogate pair; send whole characters"
    elif isinstance(value, dict):
        for name, item in value.items():
            shown = name[:MAX_NAME_CHARACTERS].encode("utf-8", "replace").decode().replace("\0", "\\0")
            inner = _below(path, shown)
            yield from _bad_text(name, f"{inner} (name)", depth)
            yield from _bad_text(item, inner, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _bad_text(item, _below(path, str(index)), depth + 1)


def _below(path: str, name: str) -> str:
    """Return the path of a part, which ends with the name that makes it too long."""
    if len(path) >= MAX_PATH_CHARACTERS:
        return path
    return f"{path}.{name}" if path else name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name appears twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "a number has too many digits" if "int_max_str_digits" in str(error) else str(error)[:200]
