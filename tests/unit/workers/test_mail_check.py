"""Mail that could wait for ever is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import UserSettingsHolder, global_settings
from django.test import override_settings

from switchyard.conf import read
from switchyard.workers.checks import servers
from switchyard.workers.checks.servers import endless_mail

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize("timeout", [None, 0])
def test_mail_without_a_timeout_is_refused(timeout: int | None) -> None:
    with override_settings(EMAIL_TIMEOUT=timeout, EMAIL_BACKEND=SMTP):
        [message] = endless_mail()

    assert message.id == "switchyard.E006"
    assert "EMAIL_TIMEOUT" in str(message.hint)


@pytest.mark.parametrize("backend", ["locmem", "console", "dummy"])
def test_mail_that_reaches_no_server_needs_no_timeout(backend: str) -> None:
    with override_settings(EMAIL_TIMEOUT=None, EMAIL_BACKEND=f"django.core.mail.backends.{backend}.EmailBackend"):
        assert not list(endless_mail())


@pytest.mark.parametrize(
    ("options", "names"), [({}, ['MAILERS["default"]["OPTIONS"]["timeout"]']), ({"OPTIONS": {"timeout": 8}}, [])]
)
def test_each_mailer_of_django_6_1_needs_a_timeout(
    options: dict[str, object], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = UserSettingsHolder(global_settings)
    stock.MAILERS = {"default": options, "tests": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    monkeypatch.setattr(servers, "settings", stock)

    assert [message.msg.partition(" is ")[0] for message in endless_mail()] == names


def test_a_project_that_names_nothing_of_mail_needs_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = UserSettingsHolder(global_settings)
    stock.SWITCHYARD = {"DEBUG": True, "ALERT_URLS": ["log:"]}
    monkeypatch.setattr(servers, "settings", stock)
    monkeypatch.setattr(servers, "switchyard_settings", lambda: read(stock.SWITCHYARD, {}, debug=True))

    assert not list(endless_mail())


@pytest.mark.parametrize("url", ["mailto:ops@example.com", "oncall=mailto:ops@example.com"])
def test_alerts_by_mail_need_a_timeout(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = UserSettingsHolder(global_settings)
    settings = read({"ALERT_URLS": [url], "STATE_DIR": tmp_path}, {}, debug=True, base_dir=tmp_path)
    monkeypatch.setattr(servers, "settings", stock)
    monkeypatch.setattr(servers, "switchyard_settings", lambda: settings)

    assert [message.id for message in endless_mail()] == ["switchyard.E006"]
