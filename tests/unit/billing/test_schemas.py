"""Payment events are read strictly."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from apps.billing.schemas import PaymentReceived

GOOD = {
    "id": "pay_1", "amount": "119.00", "currency": "EUR", "paid_at": "2026-11-20T09:30:00+01:00",
    "reference": "INV-2026-000042",
}  # fmt: skip


def read(**changes) -> PaymentReceived:
    data = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return PaymentReceived.model_validate({"type": "payment.received", "data": data})


def test_an_event_is_read_and_its_time_kept_in_utc():
    data = read().data

    assert (data.amount, data.currency) == (Decimal("119.00"), "EUR")
    assert data.paid_at == datetime.datetime(2026, 11, 20, 8, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("sent", "kept"), [("119", "119.00"), ("0.01", "0.01"), (119, "119.00"), (119.1, "119.10"), (0.1, "0.10")]
)
def test_amounts_may_be_text_or_numbers(sent, kept):
    assert str(read(amount=sent).data.amount) == kept


NO_AMOUNTS = (
    0,
    -1,
    1.001,
    1e30,
    True,
    None,
    [],
    ...,
    *("0", "0.00", "-1", "1.001", "1e3", "١", "", "1,00", " 1", "9999999999"),
)
NO_TIMES = (
    *("2026-11-20T09:30:00", "2026-13-01T00:00:00Z", "yesterday", 1_800_000_000, "0001-01-01T00:00:00+14:00"),
    *("1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", None, ...),
)


@pytest.mark.parametrize(
    "changes",
    [
        *({"amount": amount} for amount in NO_AMOUNTS),
        *({"paid_at": paid_at} for paid_at in NO_TIMES),
        *({"currency": currency} for currency in ("eur", "EURO", "€", "", 978, None, ..., "EUR\n")),
        *({"id": ""}, {"id": "p" * 65}, {"id": "a b"}, {"id": 1}, {"id": ...}, {"extra": 1}, {"reference": ...}),
        *({"reference": "r" * 141}, {"reference": "a\x00b"}, {"reference": "", "invoice_number": ""}),
        {"invoice_number": "n" * 33},
    ],
    ids=str,
)
def test_wrong_fields_are_refused(changes):
    with pytest.raises(ValidationError):
        read(**changes)


def test_a_number_without_a_reference_says_enough():
    assert read(reference=..., invoice_number="INV-2026-000042").data.reference == ""


@pytest.mark.parametrize(
    "body", [[], "text", None, {}, {"type": "payment.refunded", "data": GOOD}, {"type": "payment.received"}]
)
def test_other_events_are_refused(body):
    with pytest.raises(ValidationError):
        PaymentReceived.model_validate(body)
