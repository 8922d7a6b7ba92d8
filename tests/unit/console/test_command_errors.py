"""Commands without their database or broker end with one line."""

from __future__ import annotations

import sys

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import CommandError
from django.db import OperationalError
from django.http import HttpRequest
from django.test import override_settings

from switchyard.api.models import Token
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.conf import read
from switchyard.console.commands import as_command_error, table
from switchyard.console.room_view import ReadOnly


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OperationalError("no such table: api_token"), "manage.py migrate"),
        (BrokerRefused("an enqueue", "NOPERM"), "its user may run the command"),
        (BrokerUnavailable("an enqueue", "refused"), "check SWITCHYARD_BROKER_URL"),
    ],
    ids=["database", "refused", "broker"],
)
def test_what_is_away_is_said_with_its_remedy(error: Exception, remedy: str) -> None:
    with pytest.raises(CommandError) as caught, as_command_error("tokens"):
        raise error

    assert str(caught.value).startswith("tokens: ")
    assert str(caught.value).count(remedy) == 1


def test_the_setting_that_named_the_broker_is_said() -> None:
    own = read({"BROKER_URL": "redis://v:6390/0"}, {}, debug=True)
    with override_settings(SWITCHYARD=own), pytest.raises(CommandError) as caught, as_command_error("tokens"):
        raise BrokerUnavailable("an enqueue", "Timeout reading from v:6390")

    assert 'check SWITCHYARD["BROKER_URL"] and that the server is up' in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), as_command_error("tokens"):
        raise ZeroDivisionError


def test_a_table_goes_on_below_where_a_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("running", "send_mail", "0c3f9b1e", "a\x1b"), ("dead", "add", "5d2a11", "")]
    assert table(("state", "actor", "job", "detail"), rows).splitlines()[1] == "running  send_mail  0c3f9b1e  a\\x1b"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")

    assert table(("state", "actor", "job", "detail"), rows).splitlines()[-2:] == ["dead     add", "    5d2a11    -"]


class Kept(ReadOnly, admin.ModelAdmin):
    pass


class Deletable(ReadOnly, admin.ModelAdmin):
    deletable = True


@pytest.fixture
def request_of_root() -> HttpRequest:
    request = HttpRequest()
    request.user = User.objects.create_superuser("root")
    return request


@pytest.mark.django_db
def test_nobody_adds_changes_or_deletes_but_may_view(request_of_root: HttpRequest) -> None:
    page = Kept(Token, admin.site)

    rights = page.get_model_perms(request_of_root)

    assert rights == {"add": False, "change": False, "delete": False, "view": True}


@pytest.mark.django_db
def test_deletable_rows_are_deleted_by_those_with_the_permission(request_of_root: HttpRequest) -> None:
    page = Deletable(Token, admin.site)

    assert page.has_delete_permission(request_of_root)
    request_of_root.user = User.objects.create_user("ada", is_staff=True)
    assert not page.has_delete_permission(request_of_root)
