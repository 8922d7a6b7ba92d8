"""Request and response bodies of billing."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from switchyard.api.schemas import Line, Month, StrictSchema

_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?", re.ASCII)
_EARLIEST = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LATEST = datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)


def _amount(value: object) -> Decimal:
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _AMOUNT.fullmatch(text) is None or Decimal(text) == 0:
        raise PydanticCustomError(
            "amount", 'is not an amount of money; give one from 0.01 to 999999999.99, for example "119.00"'
        )
    return Decimal(text).quantize(Decimal("0.01"))


def _moment(value: object) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None and _EARLIEST <= moment < _LATEST:
            return moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("moment", "is not a time with its zone; give one as 2026-11-20T08:30:00Z")


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,2})?$"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 999_999_999.99},
            ],
            "description": "More than nothing, at most two decimals. A string keeps every digit.",
            "example": "119.00",
        }
    ),
]
Moment = Annotated[
    datetime.datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "example": "2026-11-20T08:30:00Z"}),
]
"""A time from 1970 to 2199 with its offset, in ISO 8601; kept in UTC."""


class ReconciliationRequest(StrictSchema):
    """The month to reconcile."""

    month: Month


class PaymentData(StrictSchema):
    """A received payment. ``invoice_number``, or a number in ``reference``, names its invoice."""

    id: Annotated[str, Field(pattern=r"^[!-~]{1,64}$", description="The provider's id of the payment.")]
    amount: Amount
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217, for example EUR.")]
    paid_at: Moment
    invoice_number: Annotated[Line, Field(max_length=32)] = ""
    reference: Annotated[Line, Field(max_length=140, description="What the payer wrote.")] = ""

    @model_validator(mode="after")
    def _says_what_for(self) -> PaymentData:
        if not self.invoice_number and not self.reference:
            raise PydanticCustomError("purpose", "has neither invoice_number nor reference; give one of them")
        return self


class PaymentReceived(StrictSchema):
    """A signed inbound event."""

    type: Literal["payment.received"]
    data: PaymentData


class EventTaken(StrictSchema):
    """The event is kept and will be applied; the same event again gets the same answer."""

    event_id: str


def event_schema() -> dict[str, Any]:
    """Return the JSON schema of an event with that of its data in place, for the OpenAPI document."""
    document = PaymentReceived.model_json_schema()
    del document["$defs"]
    document["properties"]["data"] = PaymentData.model_json_schema()
    return document
