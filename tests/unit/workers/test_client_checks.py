"""HTTP calls and mail that could wait for ever are found in the project's own source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from django.conf import UserSettingsHolder, global_settings, settings
from django.test import override_settings

from switchyard.conf import read
from switchyard.workers.checks import http_clients
from switchyard.workers.checks.http_clients import (
    endless_calls,
    endless_http_calls,
    endless_mail,
    own_folders,
)

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("import requests\nrequests.get(url)", "requests.get"),
        ("import requests as r\nr.post(url, json={})", "requests.post"),
        ("from requests import get as fetch\nfetch(url)", "requests.get"),
        ("import requests\nrequests.get(url, timeout=None)", "requests.get"),
        ("import requests\nsession = requests.Session()\nsession.get(url)", "requests.Session.get"),
        ("import requests\nwith requests.Session() as s:\n    s.post(url)", "requests.Session.post"),
        ("import requests\nself.s = requests.Session()\nself.s.put(url)", "requests.Session.put"),
        ("import requests\nrequests.Session().get(url)", "requests.Session.get"),
        ("import urllib.request\nurllib.request.urlopen(url)", "urllib.request.urlopen"),
        ("from urllib.request import urlopen\nurlopen(url, None, None)", "urllib.request.urlopen"),
        ("from urllib import request\nrequest.urlopen(url)", "urllib.request.urlopen"),
        ("import http.client\nhttp.client.HTTPConnection(host, 80)", "http.client.HTTPConnection"),
        ("from http import client\nclient.HTTPSConnection(host)", "http.client.HTTPSConnection"),
        ("import urllib3\nurllib3.PoolManager(retries=False)", "urllib3.PoolManager"),
        ("from urllib3 import HTTPSConnectionPool\nHTTPSConnectionPool(host, 443)", "urllib3.HTTPSConnectionPool"),
        ("import httpx\nhttpx.Client()", "httpx.Client"),
        ("import httpx\nhttpx.get(url, timeout=None)", "httpx.get"),
    ],
)
def test_a_call_without_a_timeout_is_found(source: str, call: str) -> None:
    assert [name for _, name in endless_calls(ast.parse(source))] == [call]


@pytest.mark.parametrize(
    "source",
    [
        "import requests\nrequests.get(url, timeout=5)",
        "import requests\nrequests.get(url, **options)",
        "import requests\nsession = requests.Session()\nsession.get(url, timeout=5)",
        "from urllib.request import urlopen\nurlopen(url, None, 5)",
        "from urllib.parse import urlsplit\nurlsplit(url)",
        "import urllib3\nurllib3.PoolManager(timeout=5)",
        "import http.client\nhttp.client.HTTPConnection(host, 80, 5)",
        "cache.get(key)",
        "requests = {}\nrequests.get(key)",
        "session = Session()\nsession.get(key)",
    ],
)
def test_a_call_that_ends_or_is_no_http_is_left_alone(source: str) -> None:
    assert list(endless_calls(ast.parse(source))) == []


def test_a_file_with_such_a_call_is_named_with_its_line_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text("import requests\n\n\ndef ask(url):\n    return requests.get(url)\n")

    [message] = endless_http_calls([tmp_path])

    assert (message.id, message.obj) == ("switchyard.E005", f"{tmp_path / 'client.py'}:5")
    assert "switchyard.outbound.http.send" in str(message.hint)


def test_the_projects_own_code_is_looked_at_and_sound() -> None:
    folders = own_folders()

    assert Path(settings.BASE_DIR) / "middleware" in folders
    assert Path(settings.BASE_DIR) / "switchyard/workers" in folders
    assert not any("site-packages" in str(folder) for folder in folders)
    assert endless_http_calls() == []


@pytest.mark.parametrize("timeout", [None, 0])
def test_mail_without_a_timeout_is_refused(timeout: int | None) -> None:
    with override_settings(EMAIL_TIMEOUT=timeout, EMAIL_BACKEND=SMTP):
        [message] = endless_mail()

    assert message.id == "switchyard.E006"
    assert "EMAIL_TIMEOUT" in str(message.hint)


@pytest.mark.parametrize("backend", ["locmem", "console", "dummy"])
def test_mail_that_reaches_no_server_needs_no_timeout(backend: str) -> None:
    with override_settings(EMAIL_TIMEOUT=None, EMAIL_BACKEND=f"django.core.mail.backends.{backend}.EmailBackend"):
        assert endless_mail() == []


@pytest.mark.parametrize(
    ("source", "ids"), [("", []), ("from django.core.mail import send_mail\n", ["switchyard.E006"])]
)
def test_a_project_that_sends_no_mail_needs_no_timeout(
    source: str, ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "views.py").write_text(source)
    stock = UserSettingsHolder(global_settings)
    stock.SWITCHYARD = {"DEBUG": True, "ALERT_URLS": ["log:"]}
    monkeypatch.setattr(http_clients, "settings", stock)
    monkeypatch.setattr(http_clients, "own_folders", lambda: [tmp_path])
    monkeypatch.setattr(http_clients, "switchyard_settings", lambda: read(stock.SWITCHYARD, {}, debug=True))

    assert [message.id for message in endless_mail()] == ids


def test_the_projects_own_mail_has_a_timeout() -> None:
    assert endless_mail() == []
