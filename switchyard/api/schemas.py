"""Types of request bodies; strict, so that wrong types are refused instead of coerced."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_TEXT_CHARACTERS = 10_000
MAX_ID = 2**63 - 1
MONTH_PATTERN = r"^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])$"
_MONTH = re.compile(MONTH_PATTERN)


class StrictSchema(BaseModel):
    """Base of every request body: refuses unknown fields, coerces nothing, limits the length of text."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=MAX_TEXT_CHARACTERS)


def _month(value: object) -> object:
    if isinstance(value, str) and not _MONTH.fullmatch(value):
        shown = value[:20]
        raise PydanticCustomError(
            "month", "is not a month: {shown}; give one from 1900-01 to 2199-12 as YYYY-MM", {"shown": repr(shown)}
        )
    return value


Month = Annotated[
    str, BeforeValidator(_month), WithJsonSchema({"type": "string", "pattern": MONTH_PATTERN, "example": "2026-10"})
]
"""A calendar month as ``YYYY-MM``, from 1900-01 to 2199-12."""

RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
"""Primary key of a row: a positive integer that every database can hold."""


def _plain_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise PydanticCustomError("line", "has a control character; give one line of plain text")
    return value


Line = Annotated[str, Field(max_length=255), AfterValidator(_plain_line)]
"""One line of text without control characters, at most 255 characters."""


class Accepted(BaseModel):
    """An accepted job; it runs later."""

    job_id: str
    status_url: str
    events_url: str


class FieldErrorBody(BaseModel):
    """Error of one field."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """A refusal by RFC 9457; ``errors`` is present when single fields are invalid.

    ``outcome`` is present when a POST failed that enqueues jobs; ``job_ids`` names those that are or may be enqueued.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldErrorBody] | None = None
    outcome: Literal["not_enqueued", "unknown"] | None = None
    job_ids: list[str] | None = None
