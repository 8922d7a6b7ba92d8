from __future__ import annotations

import sys

import pytest

from switchyard.alerts.channels import (
    AppriseChannel,
    EmailChannel,
    LogChannel,
    WebhookChannel,
    channels,
    parse,
    refuse_unusable,
)
from switchyard.alerts.checks import check_alert_urls, check_apprise
from switchyard.alerts.jira import JiraChannel
from switchyard.setting_values import InvalidSetting
from tests.unit.alerts.configuration import with_alert_urls

SECRET = "https://hooks.example.com/services/T0/canary-secret?key=canary-secret"


def test_each_scheme_makes_its_channel() -> None:
    urls = ["log:", "mailto:ops@example.com,on-call@example.com", SECRET, "http://127.0.0.1:9000/x"]
    found = list(channels(urls).values())

    assert [type(channel) for channel in found] == [LogChannel, EmailChannel, WebhookChannel, WebhookChannel]
    assert found[1] == EmailChannel(("ops@example.com", "on-call@example.com"))


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
def test_address_of_jira_names_credential_place_project_and_type(url: str, found: tuple[str, ...]) -> None:
    name, channel = parse(url, 1)

    assert channel == JiraChannel(*found)
    assert name == channel.name == f"jira {found[1].partition('://')[2]}/{found[2]}"
    assert "canary" not in channel.name + repr(channel)


def test_address_of_jira_without_a_host_is_apprise_s() -> None:
    assert isinstance(parse("jira://0b1c7b9e-canary/@ada", 1)[1], AppriseChannel)


def test_without_urls_alerts_go_to_the_log() -> None:
    assert channels([]) == {"log": LogChannel()}


def test_a_url_given_twice_is_one_channel() -> None:
    assert len(channels([SECRET, SECRET, "log:", "log:"])) == 2


def test_two_urls_of_one_host_are_two_channels_without_their_secrets() -> None:
    found = channels(["https://hooks.example.com/a-canary", "https://hooks.example.com/b-canary"])

    assert len(found) == 2
    assert all("hooks.example.com" in name for name in found)
    assert "canary" not in repr(found)


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
def test_wrong_url_is_refused_by_its_place(url: str) -> None:
    with pytest.raises(InvalidSetting, match="entry 3") as refusal:
        parse(url, 3)

    assert "canary" not in str(refusal.value)


def test_system_check_names_each_wrong_entry_and_the_fix() -> None:
    with with_alert_urls("log:", "token-canary", "mailto:"):
        found = check_alert_urls(None)

    assert [(error.id, "entry" in error.msg) for error in found] == [("switchyard.E043", True)] * 2
    assert "mailto:ops@example.com" in str(found[0].hint)
    assert "canary" not in str(found)


def test_what_apprise_cannot_use_is_refused_for_a_deployment_and_by_the_scheduler() -> None:
    with with_alert_urls("log:", "team=slack://token-canary", "nosuch://canary"):
        at_each_start, deployed = check_alert_urls(None), check_apprise(None)
        with pytest.raises(InvalidSetting, match="entry 2"):
            refuse_unusable(["log:", "team=slack://token-canary"])

    assert at_each_start == []
    assert [(error.id, "entry 2" in error.msg) for error in deployed] == [("switchyard.E043", True)]
    assert "canary" not in str(deployed)


def test_entry_of_a_service_names_the_missing_package_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.setting_values._exists", lambda module: module != "apprise")

    with pytest.raises(InvalidSetting, match=r"entry 1, slack: needs the package apprise.*the extra alerts"):
        parse("slack://token-canary/b/c", 1)


def test_no_check_and_no_name_loads_apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr("switchyard.setting_values._exists", lambda module: True)
    urls = ["slack://T0/B0/canary", "mailto:a@example.com", "pagerduty://canary-canary"]

    with with_alert_urls(*urls):
        assert check_alert_urls(None) == []

    found = channels(urls)
    assert [name.split()[0] for name in found] == ["slack", "email", "pagerduty"]
    assert "canary" not in repr(found)


def test_label_names_a_channel_once() -> None:
    assert channels([f"oncall={SECRET}", f"oncall={SECRET}"]) == {"oncall": WebhookChannel(SECRET)}
    with pytest.raises(InvalidSetting, match="entry 2 has the label oncall of another entry"):
        channels([f"oncall={SECRET}", "oncall=log:"])


def test_system_check_is_silent_when_all_is_well() -> None:
    with with_alert_urls("log:", SECRET):
        assert check_alert_urls(None) == []
