"""Rows of the products, as their jobs would have written them."""

from __future__ import annotations

from datetime import timedelta

from django.core.management import call_command
from django.utils import timezone

from apps.billing.models import EventState, Outcome, PaymentEvent, Reconciliation, ReconciliationEntry
from apps.exports.models import Dataset, Export, Format
from apps.images.models import Picture, Thumbnail, ThumbnailState
from apps.mail.models import MailState, SentMail, Template
from apps.reports.models import Report
from apps.shop.models import Customer, Invoice
from apps.webhooks.models import Attempt, Delivery, DeliveryState, Endpoint, Event

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OWNER = "user:1"


def make() -> None:
    """Fill the shop, and write a few rows of every other product."""
    call_command("seed", customers=3, verbosity=0)
    now, customer = timezone.now(), Customer.objects.order_by("id")[0]
    Report.objects.create(
        customer=customer, month="2026-10", checksum=SHA, file="reports/statement.pdf",
        filename="statement-2026-10.pdf", content_type="application/pdf", size_bytes=48_213, sha256=SHA,
    )  # fmt: skip
    Export.objects.create(
        job_id="0b1f2b9e-0000-4000-8000-000000000001", dataset=Dataset.INVOICES, format=Format.XLSX, row_count=1_204,
        file="exports/invoices.xlsx", filename="invoices.xlsx", content_type=XLSX, size_bytes=90_114, sha256=SHA,
    )  # fmt: skip
    _pictures()
    _webhooks()
    for number, state in enumerate(MailState.values):
        SentMail.objects.create(
            key=f"job-{number}:welcome", job_id=f"job-{number}", template=Template.WELCOME, to="grace@example.com",
            state=state, message_id=f"<{number}@switchyard.example>", runs=number + 1, sent_at=now,
        )  # fmt: skip
    run = Reconciliation.objects.create(month="2026-10", matched=40, unmatched=2, corrected=1, started_at=now)
    for invoice, outcome in zip(Invoice.objects.order_by("id")[:3], Outcome.values, strict=False):
        ReconciliationEntry.objects.create(
            reconciliation=run, invoice=invoice, expected="120.00", paid="100.00", outcome=outcome
        )
    PaymentEvent.objects.create(external_id="evt_0001", payload={"amount": "12.00"}, state=EventState.UNPLACED)


def _pictures() -> None:
    picture = Picture.objects.create(
        owner_key=OWNER, source_url="https://pictures.example/yard.jpg", format="jpeg", width=640, height=400,
        size_bytes=81_230,
    )  # fmt: skip
    for state in ThumbnailState.values:
        refusal = "the picture has 91,000,000 pixels" if state == ThumbnailState.REFUSED else ""
        Thumbnail.objects.create(picture=picture, width=160, height=100, job_id="", state=state, refusal=refusal)


def _webhooks() -> None:
    endpoint = Endpoint.objects.create(
        owner_key=OWNER, url="https://hooks.partner.example/switchyard", events=["invoice.paid"]
    )
    event = Event.objects.create(owner_key=OWNER, type="invoice.paid", payload='{"invoice": "INV-2026-000001"}')
    for state in DeliveryState.values:
        delivery = Delivery.objects.create(event=event, endpoint=endpoint, job_id="", state=state, attempts_count=2)
    for number in (1, 2):
        Attempt.objects.create(
            delivery=delivery, number=number, status_code=503, duration_ms=812, response_excerpt="upstream is down",
            at=timezone.now() - timedelta(minutes=number),
        )  # fmt: skip
