"""Rows of acts: written before, completed after, also when an act fails or the database is away."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import RequestFactory

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act

pytestmark = pytest.mark.django_db

ADA = Who("ada", "page")


def test_detail_is_written_without_what_postgresql_cannot_store() -> None:
    with act("queue.relocate", who=Who("ada", "page"), detail={"actor": "a\0\ud800", "ids": ["\0", 7]}) as entry:
        entry.count = 0

    row = AuditEntry.objects.get()
    assert (row.outcome, row.detail) == ("done", {"actor": "a\\x00\\ud800", "ids": ["\\x00", 7]})


def test_act_is_written_before_it_begins_and_completed_after() -> None:
    with act("queue.pause", who=ADA, target="slow", reason="the provider is away") as entry:
        begun = AuditEntry.objects.get()
        entry.count = 3

    done = AuditEntry.objects.get()
    assert (begun.outcome, begun.count, begun.ended_at) == ("begun", None, None)
    assert (done.act, done.target, done.who, done.via, done.reason) == (
        "queue.pause", "slow", "ada", "page", "the provider is away",
    )  # fmt: skip
    assert (done.outcome, done.count, done.error) == ("done", 3, "")
    assert done.ended_at is not None and done.ended_at >= done.at


def test_failed_act_keeps_what_it_did_and_the_class_of_its_error() -> None:
    with pytest.raises(ConnectionError), act("letter.requeue", who=ADA) as entry:
        entry.count = 2
        raise ConnectionError("secret of the third letter")

    row = AuditEntry.objects.get()
    assert (row.outcome, row.count, row.error) == ("failed", 2, "ConnectionError")


def test_unknown_act_is_refused_before_it_runs() -> None:
    with pytest.raises(ValueError, match="is not known"), act("queue.explode", who=ADA):
        pytest.fail("it ran")

    assert not AuditEntry.objects.exists()


def refuse_writes(execute: Any, sql: str, *args: Any) -> Any:
    if sql.startswith(("INSERT", "UPDATE")):
        raise OperationalError("database is locked")
    return execute(sql, *args)


def test_database_that_is_away_refuses_an_act() -> None:
    with connection.execute_wrapper(refuse_writes), pytest.raises(OperationalError):  # noqa: SIM117
        with act("letter.discard", who=ADA):
            pytest.fail("it ran")


def test_database_that_is_away_does_not_refuse_a_pause() -> None:
    ran = False
    with connection.execute_wrapper(refuse_writes), act("queue.pause", who=ADA, target="slow", essential=False):
        ran = True

    assert ran and not AuditEntry.objects.exists()


def test_database_that_goes_away_does_not_undo_an_act_that_is_done() -> None:
    with act("queue.pause", who=ADA, target="slow"):
        wrapped = connection.execute_wrapper(refuse_writes)
        wrapped.__enter__()
    wrapped.__exit__(None, None, None)

    assert AuditEntry.objects.get().outcome == "begun"


def test_request_is_of_the_user_who_is_logged_in(admin_user: Any) -> None:
    request = RequestFactory().post("/")
    request.user = admin_user

    assert Who.of_request(request) == Who("admin", "page")


def test_command_is_of_the_system_user_and_of_the_person_behind_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.setenv("SUDO_USER", "ada")

    assert Who.of_command() == Who("ada as root", "command")
