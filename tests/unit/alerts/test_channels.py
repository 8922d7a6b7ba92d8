"""Channels: made of their addresses, sent to together, the words of a notice; rules for when and where alerts go."""

import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from django.test import override_settings

from switchyard.alerts import channels, sending
from switchyard.alerts.checks import check_alert_urls, check_apprise
from switchyard.alerts.intake import chosen, further
from switchyard.alerts.jira import JiraChannel
from switchyard.alerts.models import Alert
from switchyard.alerts.notice import Notice, is_quiet
from switchyard.alerts.sending import ChannelBatch, send_all
from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.broker.topology import AlertRule, Yard
from switchyard.conf import declared_yard
from switchyard.operations.alerting import after_s, fact_of
from switchyard.operations.checks import check_rule_names
from switchyard.operations.findings.finding import Finding, ranked
from switchyard.setting_values import InvalidSetting
from tests.unit.alerts.configuration import with_alert_urls

SECRET = "https://hooks.example.com/services/T0/canary-secret?key=canary-secret"
ALERT = Alert(
    fingerprint="f00d", kind="dead_letter", severity="critical", title="report gave up: KeyError",
    sample="exhausted after 6 attempts", queue="slow", actor="report",
    first_at=datetime(2026, 11, 20, 2, 51, tzinfo=UTC), last_at=datetime(2026, 11, 20, 2, 54, tzinfo=UTC),
    link="https://yard.example.com/admin/",
)  # fmt: skip
FIRST = Notice("1-0", ALERT, count=1)
SECOND = replace(FIRST, id="2-0")
BOTH = [FIRST, SECOND]


def test_each_scheme_makes_its_channel_once_and_without_urls_alerts_go_to_the_log():
    mail = channels.EmailChannel(("ops@example.com", "on-call@example.com"))
    urls = ["log:", "mailto:ops@example.com,on-call@example.com", SECRET, "http://127.0.0.1:9000/x"]

    assert list(channels.channels([*urls, "log:", SECRET]).values()) == [
        *(channels.LogChannel(), mail, channels.WebhookChannel(SECRET), channels.WebhookChannel(urls[-1])),
    ]  # fmt: skip
    assert channels.channels([]) == {"log": channels.LogChannel()}
    assert isinstance(channels.parse("jira://0b1c7b9e-canary/@ada", 1)[1], channels.AppriseChannel), (
        "an address of Jira without a host"
    )


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            "jira://ops@example.com:canary-canary=1A@acme.atlassian.net/OPS",
            ("Basic b3BzQGV4YW1wbGUuY29tOmNhbmFyeS1jYW5hcnk9MUE=", "https://acme.atlassian.net", "OPS", "Task"),
        ),
        (
            "jira://canary%2Fcanary%2B@jira.example.com:8443/issues/OPS_2?type=Service%20Request",
            ("Bearer canary/canary+", "https://jira.example.com:8443/issues", "OPS_2", "Service Request"),
        ),
        ("jira://canary-canary@127.0.0.1:80/OPS", ("Bearer canary-canary", "http://127.0.0.1:80", "OPS", "Task")),
    ],
)
def test_address_of_jira_names_credential_place_project_and_type(url, found):
    name, channel = channels.parse(url, 1)

    assert channel == JiraChannel(*found)
    assert name == channel.name == f"jira {found[1].partition('://')[2]}/{found[2]}"
    assert "canary" not in channel.name + repr(channel)


def test_two_urls_of_one_host_are_two_channels_without_their_secrets_and_a_label_names_one():
    found = channels.channels(["https://hooks.example.com/a-canary", "https://hooks.example.com/b-canary"])

    assert len(found) == 2
    assert all("hooks.example.com" in name for name in found)
    assert "canary" not in repr(found)
    assert channels.channels([f"oncall={SECRET}", f"oncall={SECRET}"]) == {"oncall": channels.WebhookChannel(SECRET)}
    with pytest.raises(InvalidSetting, match="entry 2 has the label oncall of another entry"):
        channels.channels([f"oncall={SECRET}", "oncall=log:"])


WRONG = [
    *("ops@example.com", "pagerduty://", "pagerduty://no!key-canary", "opsgenie://canary", "oncall=mailto:"),
    *("oncall=team=log:", "mailto:", "mailto:not-an-address", "https://", "https:///canary"),
    *("http://host:99999/canary", "http://host:0/canary", "http://[::1/canary"),
    *("jira://acme.example.com/OPS", "jira://a@example.com:canary-canary@/OPS", "jira://canary@host/OPS"),
    *("jira://canary-canary@host", "jira://canary-canary@host/ops", "jira://canary-canary@host/OPS?priority=canary"),
    *("jira://canary%20canary@host/OPS", "jira://canary-canary@host:99999/OPS", "jira://canary-canary@host/OPS#canary"),
    *("jira://canary/canary@host/OPS", "jira://canary%0Acanary@host/OPS", "jira://canary-canary@host/OPS?type="),
]


@pytest.mark.parametrize("url", WRONG)
def test_wrong_url_is_refused_by_its_place(url):
    with pytest.raises(InvalidSetting, match="entry 3") as refusal:
        channels.parse(url, 3)

    assert "canary" not in str(refusal.value)


def test_system_check_names_each_wrong_entry_and_the_fix_and_is_silent_when_all_is_well():
    with with_alert_urls("log:", SECRET):
        assert check_alert_urls(None) == []
    with with_alert_urls("log:", "token-canary", "mailto:"):
        found = check_alert_urls(None)

    assert [(error.id, "entry" in error.msg) for error in found] == [("switchyard.E043", True)] * 2
    assert "mailto:ops@example.com" in str(found[0].hint) and "canary" not in str(found)


def test_what_apprise_cannot_use_is_refused_for_a_deployment_and_by_the_scheduler():
    with with_alert_urls("log:", "team=slack://token-canary", "nosuch://canary"):
        at_each_start, deployed = check_alert_urls(None), check_apprise(None)
        with pytest.raises(InvalidSetting, match="entry 2"):
            channels.refuse_unusable(["log:", "team=slack://token-canary"])

    assert at_each_start == []
    assert [(error.id, "entry 2" in error.msg) for error in deployed] == [("switchyard.E043", True)]
    assert "canary" not in str(deployed)


def test_entry_of_a_service_names_the_missing_package_and_its_extra(monkeypatch):
    monkeypatch.setattr("switchyard.setting_values._exists", lambda module: module != "apprise")

    with pytest.raises(InvalidSetting, match=r"entry 1, slack: needs the package apprise.*the extra alerts"):
        channels.parse("slack://token-canary/b/c", 1)


def test_no_check_and_no_name_loads_apprise(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr("switchyard.setting_values._exists", lambda module: True)
    urls = ["slack://T0/B0/canary", "mailto:a@example.com", "pagerduty://canary-canary"]

    with with_alert_urls(*urls):
        assert check_alert_urls(None) == []

    found = channels.channels(urls)
    assert [name.split()[0] for name in found] == ["slack", "email", "pagerduty"]
    assert "canary" not in repr(found)


def batch(answer: Any, notices: list[Notice] = BOTH) -> ChannelBatch:
    """Return what a channel is to send: it answers nothing, an error, or one after the other."""
    return ChannelBatch("c", SimpleNamespace(name="c", send=Mock(side_effect=answer)), notices)


def test_channel_that_refuses_one_message_gets_the_next_and_one_that_does_not_answer_is_left_alone_at_once():
    refusing = batch([channels.ChannelFailed("c", "answered 400", answered=True), None])
    silent = batch(channels.ChannelFailed("c", "no connection"))

    send_all([refusing])
    send_all([silent])

    assert isinstance(refusing.results[FIRST.id], channels.ChannelFailed)
    assert refusing.results[SECOND.id] is None
    assert set(silent.results) == {FIRST.id}


def test_broken_channel_is_a_failure_of_its_own():
    work, well = batch(ZeroDivisionError("canary"), [FIRST]), batch([None], [FIRST])

    send_all([work, well])

    failure = work.results[FIRST.id]
    assert isinstance(failure, channels.ChannelFailed)
    assert "ZeroDivisionError" in str(failure) and "canary" not in str(failure)
    assert well.results == {FIRST.id: None}


def test_channel_that_hangs_does_not_hold_up_the_others(monkeypatch):
    monkeypatch.setattr(sending, "BATCH_ENDS_S", 0.2)
    release = threading.Event()
    hung, well = batch(lambda notice: release.wait(60)), batch([None, None])

    send_all([hung, well])

    assert well.results == {FIRST.id: None, SECOND.id: None}
    assert isinstance(hung.results[FIRST.id], channels.ChannelFailed)
    assert SECOND.id not in hung.results
    release.set()


def test_first_message_tells_what_where_and_the_link_and_a_webhook_gets_plain_json_values():
    assert FIRST.headline == "[critical] report gave up: KeyError"
    assert "exhausted after 6 attempts" in FIRST.text
    steps = "Steps: http://127.0.0.1:8000/admin/operations/steps/#dead-letters"
    assert FIRST.text.endswith(f"{steps}\n\nhttps://yard.example.com/admin/")
    body = FIRST.as_json()
    assert body["type"] == "switchyard.alert.dead_letter"
    assert body["first_at"] == "2026-11-20T02:51:00.000000+00:00"


def test_digest_tells_how_many_are_new_and_how_many_there_are():
    digest = replace(FIRST, count=1_000, reported=1)

    assert digest.headline.endswith("(1,000 times)")
    assert "999 more, 1,000 since 2026-11-20 02:51:00 UTC." in digest.text
    assert (digest.as_json()["count"], digest.as_json()["new"]) == (1_000, 999)


NOW = datetime(2026, 11, 27, 22, 30, tzinfo=UTC)
LATE = AlertFact("finding-queues.late", "finding", "late", "", "", "", 0)


def with_rules(*rules: AlertRule, urls: tuple[str, ...] = ("log:",), quiet: tuple[str, str] | None = None) -> Any:
    return with_alert_urls(*urls, topology=replace(declared_yard(), alerts=rules, quiet_hours=quiet))


@pytest.mark.parametrize(
    ("fact", "name"),
    [
        (LATE, "queues.late"),
        (msgspec.structs.replace(LATE, kind="broker", fingerprint="broker-nearly_full"), "broker.nearly_full"),
        (msgspec.structs.replace(LATE, kind="dead_letter", fingerprint="f00dfacef00dface"), "dead_letter"),
    ],
)
def test_an_alert_has_the_name_of_its_finding(fact, name):
    assert fact.name == name


def test_the_first_rule_that_matches_chooses_the_channels_and_those_beyond():
    names = ["team", "oncall", "boss"]
    late = AlertRule("queues.late", channels=("team",), escalate_after_s=600, escalate_to=("oncall", "gone"))
    with with_rules(late, AlertRule("*", channels=("boss",))):
        assert chosen(LATE, names) == ["team"]
        assert further(LATE, names, NOW) == [("oncall", NOW + timedelta(minutes=10))]
        other = msgspec.structs.replace(LATE, fingerprint="finding-pools.down")
        assert (chosen(other, names), further(other, names, NOW)) == (["boss"], [])
        assert chosen(other, ["mail"]) == ["mail"]  # nobody is forgotten for a label that is gone
    with with_rules():
        assert (chosen(LATE, names), further(LATE, names, NOW)) == (names, [])


@override_settings(TIME_ZONE="UTC")
def test_quiet_hours_may_go_over_midnight():
    found = {}
    for quiet in (("22:00", "07:00"), ("09:00", "23:00"), ("09:00", "10:00"), None):
        with with_rules(quiet=quiet):
            found[quiet] = [is_quiet(NOW + timedelta(hours=hours)) for hours in (0, 5, 9)]

    assert [*found.values()] == [[True, True, False], [True, False, False], [False] * 3, [False] * 3]


def test_a_rule_says_after_which_time_a_person_is_called():
    [late] = ranked([Finding("queues", "late", "error", "default is late", "", "", "default")])
    assert after_s(late) == 30.0
    with with_rules(AlertRule("queues.*", after_s=300)):
        assert after_s(late) == 300
    with with_rules(AlertRule("queues.*", channels=("team",))):
        assert after_s(late) == 30.0


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"finding": ""}, "finding"),
        ({"after_s": -1}, "after_s"),
        ({"channels": "oncall"}, "channels"),
        ({"escalate_to": ("oncall",)}, "escalate_to"),
        ({"escalate_after_s": 60}, "escalate_to"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(wrong, option):
    with pytest.raises(InvalidDeclaration, match=option):
        AlertRule(**{"finding": "queues.late", **wrong})


@pytest.mark.parametrize("hours", [("22:00",), ("22:00", "22:00"), ("22", "7"), "22:00", ("25:00", "07:00")])
def test_quiet_hours_that_cannot_be_used_are_refused(hours):
    with pytest.raises(InvalidDeclaration, match="quiet_hours"):
        Yard((), (), quiet_hours=hours)


def test_a_rule_for_a_finding_or_a_label_that_there_is_not_is_an_error():
    rules = AlertRule("queues.lat", channels=("oncal",)), AlertRule("dead_letter"), AlertRule("history.*")
    with with_rules(*rules, urls=("oncall=log:",)):
        names, labels = check_rule_names(None), check_alert_urls(None)
    with with_rules(*rules, urls=()):
        without = check_alert_urls(None)

    said = "alert rule of queues.lat: no finding has this name"
    assert [(error.id, error.msg) for error in names] == [("switchyard.E043", said)]
    assert "Did you mean 'queues.late'?" in str(names[0].hint)
    said = "alert rule of queues.lat: no entry of SWITCHYARD_ALERT_URLS has the label 'oncal'"
    assert [error.msg for error in labels] == [said]
    assert "They are oncall" in str(labels[0].hint) and without == []


@pytest.mark.parametrize(("severity", "seconds", "called"), [("warning", 60.0, "warning"), ("error", 30.0, "critical")])
def test_late_often_waits_for_a_minute_and_for_the_end_of_quiet_hours_unless_it_is_bad(severity, seconds, called):
    [often] = ranked([Finding("queues", "burning", severity, "x", "y", "z", "default")])

    assert (after_s(often), fact_of([often]).severity) == (seconds, called)
