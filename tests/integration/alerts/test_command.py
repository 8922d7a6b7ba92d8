"""``manage.py switchyard alerts`` with a row for each act, and what is silenced: written and counted, but not sent."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from switchyard.alerts import acts, notice, sending
from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused
from tests.factories.alerts import make_alert
from tests.factories.commands import json_of, output_of
from tests.integration.alerts.conftest import fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
ADA = Who("ada", "page")


@pytest.fixture
def alert():
    given = {"sample": "why\nso", "count": 3, "queue": "default", "actor": "mail"}
    return make_alert(fingerprint="f00d", title="mail gave up\x1b[31m", **given)


def test_list_shows_unresolved_alerts_and_silences(alert):
    output_of("alerts", "silence", "f00d", "--for", "2h", "--reason", "known")

    found = json_of("alerts", "list")

    assert [row["id"] for row in found["alerts"]] == [alert.pk]
    assert [(row["fingerprint"], row["reason"]) for row in found["silences"]] == [("f00d", "known")]
    text = output_of("alerts", "list")
    assert r"mail gave up\x1b[31m (3 times)" in text and "by " in text and "known" in text


def test_acknowledged_and_resolved_alerts_leave_rows(alert):
    assert json_of("alerts", "acknowledge", alert.pk, "--reason", "on it") == {"done": 1, "asked": 1}
    output_of("alerts", "resolve", alert.pk)
    with pytest.raises(CommandError, match="had been resolved before"):
        output_of("alerts", "resolve", alert.pk)

    alert.refresh_from_db()
    assert alert.state == "resolved" and alert.acknowledged_by.endswith("(shell)")
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "reason", "count", "outcome")
    key = str(alert.pk)
    resolved = [("alert.resolve", key, "", count, "done") for count in (1, 0)]
    assert list(rows) == [("alert.acknowledge", key, "on it", 1, "done"), *resolved]
    assert json_of("alerts", "list")["alerts"] == []
    assert len(json_of("alerts", "list", "--state", "all")["alerts"]) == 1


def test_an_alert_is_silenced_by_its_id_or_fingerprint_and_an_unknown_one_is_named(alert, capsys):
    by_id = json_of("alerts", "silence", str(alert.pk), "--for", "1h", "--reason", "known")
    output_of("alerts", "silence", "f00dfacef00dface", "--for", "1h", "--reason", "soon")

    assert by_id["fingerprint"] == alert.fingerprint
    assert "no alert has had the fingerprint f00dfacef00dface yet" in capsys.readouterr().err
    with pytest.raises(CommandError, match="alert 4711: no alert has this id"):
        output_of("alerts", "silence", "4711", "--for", "1h", "--reason", "known")


def test_silence_and_unsilence_leave_rows(alert):
    made = json_of("alerts", "silence", "--all", "--for", "30m", "--reason", "maintenance")
    ended = json_of("alerts", "unsilence", made["id"])

    assert (made["fingerprint"], ended["id"]) == ("", made["id"])
    silence = Silence.objects.get()
    assert silence.until - silence.created_at <= timedelta(minutes=30) and silence.ended_at is not None
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "count")
    assert list(rows) == [("alert.silence", "", 1), ("alert.unsilence", str(made["id"]), 1)]
    with pytest.raises(CommandError, match="no silence in force"):
        output_of("alerts", "unsilence", made["id"])


@pytest.mark.parametrize(
    "words",
    [
        ("silence", "--for", "1h", "--reason", "x"),
        ("silence", "f00d", "--all", "--for", "1h", "--reason", "x"),
        ("silence", "f00d", "--for", "2w", "--reason", "x"),
        ("silence", "f00d", "--for", "1h", "--reason", " "),
    ],
)
def test_unusable_arguments_exit_with_2(words):
    with pytest.raises(CommandError) as refused:
        output_of("alerts", *words)

    assert refused.value.returncode == 2
    assert not Silence.objects.exists()


@pytest.mark.parametrize("command", ["alerts", "bulk"])
def test_a_text_in_place_of_a_number_is_answered_with_what_prints_numbers(command):
    words = f"'abc' is not a number; write one that manage.py switchyard {command} list prints"
    with pytest.raises(CommandError, match=words):
        call_command("switchyard", command, "show", "abc")


def test_channels_are_numbered_and_one_is_sent_a_test_by_name_or_number(receiver):
    with with_alert_urls("log:", f"team={receiver.url}"):
        listed = output_of("alerts", "channels")
        by_number = output_of("alerts", "test", "2")
        assert json_of("alerts", "test", "team")["channel"] == "team"
        receiver.answers = [500]
        with pytest.raises(CommandError, match="team did not accept the test: answered 500; check its entry"):
            output_of("alerts", "test", "team")
        with pytest.raises(CommandError, match="has no channel 'nobody'; it has log, team"):
            output_of("alerts", "test", "nobody")
        rows = json_of("alerts", "channels")

    assert [line.strip() for line in listed.splitlines()] == ["1  log: no message yet", "2  team: no message yet"]
    assert "team accepted a test message" in by_number
    assert [body["title"] for body in receiver.bodies] == ["Test of this channel"] * 2
    assert [row["name"] for row in rows] == ["log", "team"]
    assert "canary-secret" not in listed + by_number + str(rows)


def silence(fingerprint: str = "", **changes: Any) -> Silence:
    until = timezone.now() + timedelta(hours=1)
    values = {"until": until, "reason": "the provider is slow", "who": ADA}
    return acts.silence(fingerprint, **values | changes)


@pytest.mark.parametrize(("silenced", "sent"), [("f00dfacef00dface", ["another"]), ("", [])], ids=["a cause", "all"])
def test_what_is_silenced_is_written_and_counted_but_not_sent(groups, receiver, silenced, sent):
    silence(silenced)
    groups.raise_(fact())
    groups.raise_(fact(fingerprint="another"))

    with with_alert_urls(receiver.url):
        assert sending.dispatch_due() == len(sent)

    assert [body["fingerprint"] for body in receiver.bodies] == sent and Alert.objects.count() == 2
    alert = Alert.objects.get(fingerprint="f00dfacef00dface")
    assert (alert.count, alert.state, alert.deliveries.get().state) == (1, "open", "silenced")


def test_digest_is_silenced_and_the_one_after_it_counts_on(groups, receiver):
    with with_alert_urls(receiver.url):
        groups.raise_(fact())
        sending.dispatch_due()
        made = silence("f00dfacef00dface")
        for _ in range(5):
            groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 0 and Delivery.objects.filter(state="silenced").exists())
        acts.unsilence(made.pk, who=ADA)
        groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 1)

    assert [(body["new"], body["count"]) for body in receiver.bodies] == [(1, 1), (1, 7)]


def test_silence_ends_by_itself_and_cannot_be_ended_again(groups, receiver):
    made = silence(until=timezone.now() - timedelta(seconds=1))
    groups.raise_(fact())

    with with_alert_urls(receiver.url):
        assert sending.dispatch_due() == 1
    assert acts.unsilence(made.pk, who=ADA) is None


def test_message_that_waits_for_a_retry_is_held_back(groups, receiver):
    receiver.answers = [503]
    groups.raise_(fact())

    with with_alert_urls(receiver.url):
        sending.dispatch_due()
        silence("f00dfacef00dface")
        Delivery.objects.update(next_try_at=timezone.now())
        assert sending.dispatch_due() == 0

    assert Delivery.objects.get().state == "silenced" and receiver.bodies == []


@pytest.mark.parametrize("span", ["", "1", "0h", "2w", "31d", "99999d", "-1h"])
def test_span_that_is_unusable_or_too_long_is_refused(span):
    with pytest.raises(ActRefused):
        notice.end_of(span)


def test_silence_needs_a_reason_which_is_written_without_what_postgresql_cannot_store():
    with pytest.raises(ActRefused, match="no reason"):
        silence(reason="  ")
    made = silence("f\0", reason="why\0")

    assert (made.fingerprint, made.reason) == ("f\\x00", "why\\x00")
