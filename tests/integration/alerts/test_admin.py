"""The page of alerts: acts on one and on several, silences, rules, channels and their test."""

from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from django.urls import reverse
from django.utils import timezone

from switchyard.alerts import acts, intake, sending, views
from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from tests.factories.alerts import make_alert
from tests.factories.pages import text_of
from tests.factories.staff import staff
from tests.integration.alerts.conftest import fact
from tests.unit.alerts.configuration import with_alert_urls

pytestmark = pytest.mark.django_db
LIST = reverse("switchyard-alerts")
logged_in = partial(staff, name="a.lind")
TEST = reverse("switchyard-alerts-test")


@pytest.fixture
def alert(groups):
    groups.raise_(fact(title="<script>alert(1)</script>"))
    with with_alert_urls("log:"):
        sending.dispatch_due()
    return Alert.objects.get()


def test_acknowledging_is_noted_with_who_and_when(alert):
    client = logged_in("view_alert", "acknowledge_alert")

    for _ in range(2):
        client.post(LIST, {"action": "acknowledge", "_selected_action": [alert.pk]})

    alert.refresh_from_db()
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", "a.lind")


def one(alert: Alert, verb: str) -> str:
    return reverse("switchyard-alert-act", args=[alert.pk, verb])


def test_alert_is_acknowledged_and_resolved_on_its_own_page(alert):
    client = logged_in("view_alert", "acknowledge_alert")
    page = client.get(reverse("switchyard-alert", args=[alert.pk])).content.decode()
    assert one(alert, "acknowledge") in page and one(alert, "resolve") in page and " UTC" in page

    client.post(one(alert, "acknowledge"))
    client.post(one(alert, "resolve"))

    alert.refresh_from_db()
    assert (alert.state, alert.acknowledged_by, alert.resolved_by) == ("resolved", "a.lind", "a.lind")
    rows = AuditEntry.objects.order_by("id").values_list("act", "who", "via", "target", "count")
    assert list(rows) == [(f"alert.{act}", "a.lind", "page", str(alert.pk), 1) for act in ("acknowledge", "resolve")]
    page = client.get(reverse("switchyard-alert", args=[alert.pk])).content.decode()
    assert "Resolved by a.lind" in page and one(alert, "resolve") not in page


def test_silence_is_made_shown_with_who_until_why_and_ended(alert):
    client = logged_in("view_alert", "silence_alert")
    form = reverse("switchyard-alerts-silence")
    assert "Silence this alert" in client.get(form, {"fingerprint": alert.fingerprint}).content.decode()

    refused = client.post(form, {"fingerprint": alert.fingerprint, "span": "4h", "reason": " "})
    client.post(form, {"fingerprint": alert.fingerprint, "span": "4h", "reason": "<b>provider</b>"})

    silence = Silence.objects.get()
    assert refused.status_code == 400
    for address in (LIST, reverse("switchyard-alert", args=[alert.pk])):
        page = client.get(address).content.decode()
        assert "a.lind" in page and "&lt;b&gt;provider" in page and f"{silence.until:%-d %b %Y %H:%M}" in page
    client.post(reverse("switchyard-alerts-unsilence", args=[silence.pk]))
    silence.refresh_from_db()
    assert silence.ended_by == "a.lind"
    rows = [(row.act, row.outcome) for row in AuditEntry.objects.order_by("id")]
    assert rows == [("alert.silence", "failed"), ("alert.silence", "done"), ("alert.unsilence", "done")]


def test_unknown_alert_and_act_are_404(alert):
    client = logged_in("view_alert", "acknowledge_alert")

    assert client.post(one(alert, "explode")).status_code == 404
    assert client.post(reverse("switchyard-alert-act", args=[999_999, "resolve"])).status_code == 404
    assert client.get(one(alert, "resolve")).status_code == 405


def test_all_open_alerts_that_match_and_were_there_are_acknowledged_at_once(alert):
    client = logged_in("view_alert", "acknowledge_alert")
    act = f"acknowledge up to {make_alert(queue='elsewhere').pk}"

    page = client.get(LIST, {"queue": "elsewhere"}).content.decode()
    make_alert(queue="elsewhere")
    client.post(f"{LIST}?queue=elsewhere", {"action": act})

    assert f'value="{act}">Acknowledge all 1 open</button>' in page
    assert [each.state for each in Alert.objects.order_by("pk")] == ["open", "acknowledged", "open"]
    assert Alert.objects.filter(acknowledged_by="a.lind").count() == AuditEntry.objects.get().count == 1


def deliver(alert: Alert, channel: str, state: Delivery.State, **values: Any) -> None:
    Delivery.objects.create(
        alert=alert, channel=channel, reported=Delivery.objects.count(), count=1, state=state,
        next_try_at=timezone.now(), **values,
    )  # fmt: skip


def test_an_act_that_fails_halfway_counts_what_it_did(monkeypatch):
    monkeypatch.setattr(intake, "resolve", Mock(side_effect=[True, OSError]))
    with pytest.raises(OSError):
        acts.apply("resolve", [make_alert(), make_alert()], who=Who("a.lind", "page"))
    assert AuditEntry.objects.values_list("count", "outcome").get() == (1, "failed")


def test_channels_say_whether_they_deliver():
    alert, now = make_alert(), timezone.now()
    with with_alert_urls("log:", "mailto:ops@example.com", "mailto:second@example.com"):
        names = [row["name"] for row in views.channel_rows()]
        for name in names[:2]:
            deliver(alert, name, Delivery.State.SENT, sent_at=now - timedelta(minutes=2))
        deliver(alert, names[1], Delivery.State.PENDING, error="connection refused")
        log, mail, second = views.channel_rows()

    assert (log["error"], log["waiting"], log["at"]) == ("", 0, now - timedelta(minutes=2))
    assert (mail["error"], mail["waiting"]) == ("connection refused", 1)
    assert (second["at"], second["error"], second["waiting"]) == (None, "", 0)


def test_a_test_reaches_its_channel_and_is_in_the_audit_log(receiver):
    client = logged_in("view_alert", "silence_alert")
    with with_alert_urls("log:", receiver.url):
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
