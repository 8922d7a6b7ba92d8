"""Acts of people on the yard: alerts, silences, bulk acts, a stored schedule, API tokens, the audit log."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.api.models import IdempotentRequest
from switchyard.api.tokens import create_token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.bulk.models import BulkAct
from switchyard.schedules.models import StoredSchedule

OPERATOR = Who("a.lind", "page")


def make() -> None:
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
        Delivery.objects.create(
            alert=alert, channel="mailto:ops@example.com", reported=0, count=3, state=Delivery.State.SENT, tries=1,
            next_try_at=now, sent_at=now,
        )  # fmt: skip
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
