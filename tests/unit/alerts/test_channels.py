from __future__ import annotations

import pytest

from switchyard.alerts.channels import EmailChannel, LogChannel, WebhookChannel, channels, parse
from switchyard.alerts.checks import check_alert_urls
from switchyard.setting_values import InvalidSetting
from tests.unit.alerts.configuration import with_alert_urls

SECRET = "https://hooks.example.com/services/T0/canary-secret?key=canary-secret"


def test_each_scheme_makes_its_channel() -> None:
    found = channels(["log:", "mailto:ops@example.com,on-call@example.com", SECRET, "http://127.0.0.1:9000/x"])

    assert [type(channel) for channel in found] == [LogChannel, EmailChannel, WebhookChannel, WebhookChannel]
    assert found[1] == EmailChannel(("ops@example.com", "on-call@example.com"))


def test_without_urls_alerts_go_to_the_log() -> None:
    assert channels([]) == (LogChannel(),)


def test_a_url_given_twice_is_one_channel() -> None:
    assert len(channels([SECRET, SECRET, "log:", "log:"])) == 2


def test_two_urls_of_one_host_are_two_channels_without_their_secrets() -> None:
    one, two = channels(["https://hooks.example.com/a-canary", "https://hooks.example.com/b-canary"])

    assert one.name != two.name
    assert all("hooks.example.com" in text and "canary" not in text for text in (one.name, two.name))
    assert "canary" not in repr(one)


WRONG = [
    "ops@example.com",
    "slack://token-canary",
    "mailto:",
    "mailto:not-an-address",
    "https://",
    "https:///canary",
    "http://host:99999/canary",
    "http://host:0/canary",
    "http://[::1/canary",
]


@pytest.mark.parametrize("url", WRONG)
def test_wrong_url_is_refused_by_its_place(url: str) -> None:
    with pytest.raises(InvalidSetting, match="entry 3") as refusal:
        parse(url, 3)

    assert "canary" not in str(refusal.value)


def test_system_check_names_each_wrong_entry_and_the_fix() -> None:
    with with_alert_urls("log:", "slack://token-canary", "mailto:"):
        found = check_alert_urls(None)

    assert [(error.id, "entry" in error.msg) for error in found] == [("switchyard.E043", True)] * 2
    assert "mailto:ops@example.com" in str(found[0].hint)
    assert "canary" not in str(found)


def test_system_check_is_silent_when_all_is_well() -> None:
    with with_alert_urls("log:", SECRET):
        assert check_alert_urls(None) == []
