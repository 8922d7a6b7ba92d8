"""Slack, PagerDuty, Opsgenie and mail: one message, and one resolution of the same cause; no secret in a log."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import threading
import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from switchyard.alerts import acts, intake, sending
from switchyard.alerts.channels import AppriseChannel, ChannelFailed
from switchyard.alerts.models import Alert, Delivery
from switchyard.audit.services import Who
from switchyard.broker.stores.alert_groups import AlertGroups
from tests.factories.smtp import smtp_server
from tests.integration.alerts.conftest import Receiver, fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.alerts.test_channels import FIRST
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcanarySecret/"
KEY = "canary-secret-canary-secret"


@pytest.fixture
def slack(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """A receiver in the place of Slack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of services that are not used here
        AppriseChannel(SLACK).service()
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{receiver.port}/services")
    receiver.answers, receiver.words = [200] * 10, b"ok"
    return receiver


def finding(**changes: Any) -> Any:
    text = "Cause: it was killed.\nNext: Run `manage.py switchyard runpool urgent`."
    return fact(
        kind="finding", fingerprint="finding-pools.down", title="No pool serves <urgent>", detail=text, **changes
    )


def test_one_message_and_one_resolution_with_the_same_key_reach_each_service(
    groups: AlertGroups, slack: Receiver, second_receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pager = second_receiver
    urls = (SLACK, f"pagerduty://{KEY}@127.0.0.1:{pager.port}", "mailto:ops@example.com")
    backend = "django.core.mail.backends.smtp.EmailBackend"
    with (
        smtp_server() as mails,
        with_alert_urls(*urls),
        override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=mails.port),
    ):
        groups.raise_(finding())
        assert [sending.dispatch_due(), sending.dispatch_due()] == [3, 0]
        intake.resolve_gone("finding", ())
        assert [sending.dispatch_due(), sending.dispatch_due()] == [3, 0]

    text, end = (json.dumps(body) for body in slack.bodies)
    for part in (
        r"[critical] No pool serves \u2039urgent\u203a",
        "it was killed",
        "runpool urgent",
        "/admin/operations/",
    ):
        assert part in text
    assert "[resolved] No pool serves" in end and "Its cause has ended" in end
    trigger, resolved = pager.bodies
    assert [(body["event_action"], body["routing_key"]) for body in pager.bodies] == [
        ("trigger", KEY),
        ("resolve", KEY),
    ]
    assert trigger["dedup_key"] == resolved["dedup_key"] == "127.0.0.1/finding-pools.down"
    assert trigger["payload"]["severity"] == "critical" and trigger["payload"]["summary"].endswith("<urgent>")
    assert "runpool urgent" in trigger["payload"]["custom_details"]["text"]
    assert trigger["links"][0]["href"].startswith("http") and pager.paths == ["/v2/enqueue"] * 2
    assert [mail["Subject"].split()[0] for mail in mails.mails] == ["[critical]", "[resolved]"]
    stored = json.dumps(list(Delivery.objects.values("channel", "error")))
    assert not any(secret in caplog.text + stored for secret in (KEY, "canarySecret"))


def test_opsgenie_closes_what_it_created(groups: AlertGroups, receiver: Receiver) -> None:
    with with_alert_urls(f"oncall=opsgenie://{KEY}@127.0.0.1:{receiver.port}"):
        groups.raise_(finding())
        sending.dispatch_due()
        intake.resolve_gone("finding", ())
        sending.dispatch_due()

    assert receiver.paths == ["/v2/alerts", "/v2/alerts/127.0.0.1%2Ffinding-pools.down/close?identifierType=alias"]
    assert receiver.bodies[0]["alias"] == "127.0.0.1/finding-pools.down"
    assert [headers["authorization"] for headers in receiver.headers] == [f"GenieKey {KEY}"] * 2
    assert set(Delivery.objects.values_list("channel", flat=True)) == {"oncall"}


def test_what_a_person_resolves_is_told_where_an_incident_would_stay_open(
    groups: AlertGroups, receiver: Receiver, second_receiver: Receiver
) -> None:
    with with_alert_urls(f"pagerduty://{KEY}@127.0.0.1:{receiver.port}", second_receiver.url):
        groups.raise_(fact())
        sending.dispatch_due()
        intake.resolve(Alert.objects.get().pk, by="ada")
        sending.dispatch_due()
        ended = len(second_receiver.bodies)
        Alert.objects.update(resolved_at=timezone.now() - timedelta(seconds=1))  # the broker counts in milliseconds
        groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 0 and len(receiver.bodies) == 3)

    assert [body["event_action"] for body in receiver.bodies] == ["trigger", "resolve", "trigger"]
    assert (ended, len(second_receiver.bodies)) == (1, 2)


def test_refusal_and_silence_of_a_service_are_named_without_its_address(
    slack: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    slack.answers = [403]
    with pytest.raises(ChannelFailed, match="answered 403") as refused:
        AppriseChannel(SLACK).send(FIRST)
    monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", "http://127.0.0.1:1/services")
    with pytest.raises(ChannelFailed, match="could not send it") as gone:
        AppriseChannel(SLACK).send(FIRST)

    assert (refused.value.answered, gone.value.answered) == (True, False)
    assert not any("anarySecret" in str(text) for text in (refused.value, gone.value, caplog.text))


def test_service_that_hangs_ends_at_the_deadline(slack: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    slack.hang = threading.Event()
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 0.3)

    with pytest.raises(ChannelFailed, match=r"no answer in 0.3 s|could not send"):
        AppriseChannel(SLACK).send(FIRST)

    slack.hang.set()


@pytest.mark.parametrize(
    ("module", "name", "address", "words"),
    [
        ("telegram", "NotifyTelegram", "tgram://123456789:abcdefg_hijklmnop/12315544/", b'{"ok": true, "result": {}}'),
        ("discord", "NotifyDiscord", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", b""),
        ("discord", "NotifyDiscord", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js?format=markdown", b""),
    ],
)
def test_the_words_of_an_error_call_nobody_and_make_no_link(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, module: str, name: str, address: str, words: bytes
) -> None:
    AppriseChannel(address).service()
    service = getattr(importlib.import_module(f"apprise.plugins.{module}"), name)
    monkeypatch.setattr(service, "notify_url", f"http://127.0.0.1:{receiver.port}/")
    receiver.answers, receiver.words = [200] * 5, words
    alert = copy.copy(FIRST.alert)
    alert.title = "<i>@here</i> gave up"
    alert.sample = '<urlopen error> @everyone <@123456789012345678> [Mend it](https://evil.example) <a href="//evil">'

    AppriseChannel(address).send(replace(FIRST, alert=alert))

    sent = json.dumps(receiver.bodies, ensure_ascii=False)
    assert "urlopen error" in sent and "Mend it" in sent
    assert not any(live in sent for live in ("@everyone", "@here", "<@", "](", "<a", "<i", '"123456789012345678"'))


def test_short_channel_gets_the_link(slack: Receiver) -> None:
    from apprise.plugins.slack import NotifySlack

    NotifySlack.body_maxlen, whole = 60, NotifySlack.body_maxlen
    try:
        AppriseChannel(SLACK).send(FIRST)
    finally:
        NotifySlack.body_maxlen = whole

    [body] = slack.bodies
    assert "https://yard.example.com/admin/" in json.dumps(body) and "exhausted" not in json.dumps(body)


def test_test_message_says_so(slack: Receiver) -> None:
    with with_alert_urls(f"team={SLACK}"):
        acts.send_test("team", who=Who("ada", "shell"))

    assert "Test of this channel" in json.dumps(slack.bodies[0]) and "Nothing is wrong" in json.dumps(slack.bodies[0])
