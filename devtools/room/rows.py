"""Rows of the products, as their jobs would have written them, and of acts of people."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from apps.billing.models import EventState, Outcome, PaymentEvent, Reconciliation, ReconciliationEntry
from apps.exports.models import Dataset, Export, Format
from apps.images.models import Picture, Thumbnail, ThumbnailState
from apps.mail.models import MailState, SentMail, Template
from apps.reports.models import Report
from apps.shop import sample
from apps.shop.models import Customer, Invoice
from apps.webhooks.models import Attempt, Delivery, DeliveryState, Endpoint, Event
from devtools.room.jobs import OPERATOR
from switchyard.alerts.models import Alert, Silence
from switchyard.api.models import IdempotentRequest
from switchyard.api.tokens import create_token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import act
from switchyard.bulk.models import BulkAct
from switchyard.schedules.models import StoredSchedule

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OWNER = "user:1"


def make_products() -> None:
    """Fill the shop, and write a few rows of every other product."""
    now = timezone.now()
    sample.create(customers=3, until=now.date())
    customer = Customer.objects.order_by("id")[0]
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


def make_acts() -> None:
    """Write acts of people on the yard: alerts, silences, bulk acts, a stored schedule, a token, the audit log."""
    _alerts()
    _bulk_acts()
    StoredSchedule.objects.create(
        name="nightly export", actor="export_dataset", kwargs={"dataset": "invoices", "format": "csv"},
        cron="0 2 * * *", time_zone="Europe/Berlin", overlap="skip", deadline_s=3_600,
    )  # fmt: skip
    owner = User.objects.get(username="ada.byron")
    token, _ = create_token(owner=owner, scopes=["submit", "read"], name="the shop's backend")
    IdempotentRequest.objects.create(token=token, key="order-4711", fingerprint="9f86d081", status=202, body=b"{}")
    with act("queue.pause", who=OPERATOR, target="images", reason="the picture host is moved") as entry:
        entry.count = 1
    with act("settings.change", who=OPERATOR, target="retention", detail={"from": 90, "to": 30}) as entry:
        entry.error = "refused"
    AuditEntry.objects.filter(act="queue.pause").update(at=timezone.now() - timedelta(minutes=12))


def _alerts() -> None:
    now = timezone.now()
    for number, (state, severity) in enumerate(
        ((Alert.State.OPEN, "critical"), (Alert.State.OPEN, "warning"), (Alert.State.ACKNOWLEDGED, "warning"),
         (Alert.State.RESOLVED, "critical"))
    ):  # fmt: skip
        alert = Alert.objects.create(
            fingerprint=f"seeded-{number}", kind="queue", title=f"Valkey: memory is at {80 + number} %",
            severity=severity, sample="used_memory is above maxmemory", count=3 + number, queue="default",
            first_at=now - timedelta(minutes=30 + number), last_at=now - timedelta(minutes=number), state=state,
            acknowledged_by="a.lind" if state == Alert.State.ACKNOWLEDGED else "",
            resolved_at=now - timedelta(minutes=number) if state == Alert.State.RESOLVED else None,
        )  # fmt: skip
        alert.deliveries.create(
            channel="mailto:ops@example.com", reported=0, count=3, state="sent", tries=1, next_try_at=now, sent_at=now
        )
    Silence.objects.create(
        fingerprint="seeded-1", until=now + timedelta(hours=2), reason="planned work", created_by="a.lind"
    )


def _bulk_acts() -> None:
    now = timezone.now()
    for state in BulkAct.State:
        ended = state in (BulkAct.State.DONE, BulkAct.State.FAILED, BulkAct.State.STOPPED)
        BulkAct.objects.create(
            kind="letter.requeue", filter={"fingerprint": "f00dfacef00dface"}, state=state, total=301, who="a.lind",
            via="page", reason="vat_rate is there again", done=301 if state == BulkAct.State.DONE else 120, skipped=2,
            skips={"is gone": 2}, started_at=now, touched_at=now + timedelta(days=1), ended_at=now if ended else None,
            error="KeyError: 'vat_rate'" if state == BulkAct.State.FAILED else "",
        )  # fmt: skip
