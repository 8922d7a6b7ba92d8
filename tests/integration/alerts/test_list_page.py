"""The page of alerts below its cards: rules, channels and their test, what ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from switchyard.alerts import views
from switchyard.alerts.models import Alert, Delivery
from switchyard.audit.models import AuditEntry
from tests.factories.pages import text_of
from tests.integration.alerts.conftest import Receiver
from tests.integration.alerts.test_admin import LIST, logged_in
from tests.integration.alerts.test_dispatch import configured
from tests.unit.alerts.configuration import with_alert_urls

pytestmark = pytest.mark.django_db
TEST = reverse("switchyard-alerts-test")


def make(kind: str = "dead_letter", **values: Any) -> Alert:
    now = timezone.now()
    return Alert.objects.create(
        fingerprint=f"made-{Alert.objects.count()}", kind=kind, severity="critical", sample="x",
        **({"title": "made", "count": 1, "first_at": now, "last_at": now} | values),
    )  # fmt: skip


def deliver(alert: Alert, channel: str, state: Delivery.State, **values: Any) -> None:
    Delivery.objects.create(
        alert=alert, channel=channel, reported=Delivery.objects.count(), count=1, state=state,
        next_try_at=timezone.now(), **values,
    )  # fmt: skip


def test_channels_say_whether_they_deliver() -> None:
    alert, now = make(), timezone.now()
    with with_alert_urls("log:", "mailto:ops@example.com", "mailto:second@example.com"):
        names = [row["name"] for row in views.channel_rows()]
        for name in names[:2]:
            deliver(alert, name, Delivery.State.SENT, sent_at=now - timedelta(minutes=2))
        deliver(alert, names[1], Delivery.State.PENDING, error="connection refused")
        log, mail, second = views.channel_rows()

    assert (log["error"], log["waiting"], log["at"]) == ("", 0, now - timedelta(minutes=2))
    assert (mail["error"], mail["waiting"]) == ("connection refused", 1)
    assert (second["at"], second["error"], second["waiting"]) == (None, "", 0)


def test_a_test_reaches_its_channel_and_is_in_the_audit_log(receiver: Receiver) -> None:
    client = logged_in("view_alert", "silence_alert")
    with configured(receiver, first=("log:",)):
        name = views.channel_rows()[-1]["name"]
        assert f"Send test to {name}" in text_of(client.get(LIST))
        answer = client.post(TEST, {"channel": name}, follow=True)
        receiver.answers = [500]
        refused = client.post(TEST, {"channel": name}, follow=True)
        unknown = client.post(TEST, {"channel": "pager"}, follow=True)

    assert f"{name} accepted a test message within " in text_of(answer)
    [body] = receiver.bodies
    assert (body["type"], body["title"]) == ("switchyard.alert.test", "Test of this channel")
    assert "a.lind sent it" in str(body["text"])
    assert f"{name} did not accept the test: " in text_of(refused)
    assert "SWITCHYARD_ALERT_URLS has no channel 'pager'" in text_of(unknown)
    rows = AuditEntry.objects.order_by("id").values_list("act", "who", "target", "outcome")
    assert list(rows) == [("alert.test", "a.lind", name, "done"), ("alert.test", "a.lind", name, "failed")]
    assert not Alert.objects.exists()
