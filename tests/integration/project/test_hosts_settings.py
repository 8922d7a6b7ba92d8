"""Settings that other projects have and this one does not: transactions around requests, logins, compression, users."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.contrib import admin
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AnonymousUser, User
from django.core.handlers.base import BaseHandler
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.middleware.gzip import GZipMiddleware
from django.test import Client
from django.urls import URLResolver
from django.utils import timezone

from apps.retention import urls as retention
from project.urls import urlpatterns
from switchyard import database
from switchyard.api.admin import TokenAdmin
from switchyard.api.middleware import NAMESPACE
from switchyard.api.models import Token, covered_scopes
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.broker.errors import BrokerUnavailable
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import claim
from switchyard.console.room_view import room_view
from switchyard.jobs import live
from switchyard.jobs.models import DoneOnce
from switchyard.jobs.once import delete_old_keys
from switchyard.operations import urls as room
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.rows import aliases
from switchyard.outbox.sends import CommitSends
from tests.factories.callers import Caller

pytestmark = pytest.mark.django_db


def views(patterns: list[Any]) -> Iterator[Callable[..., Any]]:
    for each in patterns:
        yield from views(each.url_patterns) if isinstance(each, URLResolver) else [each.callback]


API_PATTERNS: list[Any] = [each for each in urlpatterns if getattr(each, "namespace", "") == NAMESPACE]
OURS = [*views(room.urlpatterns), *views(list(retention.urlpatterns)), *views(API_PATTERNS)]


def test_no_view_of_ours_is_within_a_transaction_of_its_request(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    assert len(OURS) > 80
    assert [view for view in OURS if BaseHandler().make_view_atomic(view) is not view] == []


def test_no_page_is_within_a_transaction_on_another_database(monkeypatch):
    monkeypatch.setitem(connections.settings, "other", {"ATOMIC_REQUESTS": True})

    page = room_view(lambda request: HttpResponse())

    assert BaseHandler().make_view_atomic(page) is page


def test_no_view_of_ours_waits_for_a_login_that_it_does_not_need():
    request = HttpRequest()
    request.user = AnonymousUser()
    demanding = LoginRequiredMiddleware(lambda request: HttpResponse())

    assert [view for view in OURS if demanding.process_view(request, view, (), {}) is not None] == []
    assert Client().get("/admin/operations/").headers["Location"].startswith("/admin/login/")


@pytest.mark.django_db(transaction=True)
def test_a_key_replays_no_answer_of_a_job_that_was_not_sent(facilities, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    broker: Any = dramatiq.get_broker()
    sends = CommitSends(broker, waits=True, keeps_rows=False)
    monkeypatch.setattr(broker, "postpone", sends)
    caller = Caller()
    caller.headers["Idempotency-Key"] = "one"

    def away(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable("enqueue", "timeout")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "put", away)
        patch.setattr(broker, "postpone", lambda messages, delay: away() if sends(messages, delay) else ())
        first = caller.post("/emails", {"to": "ada@mail.example", "template": "welcome"})
    second = caller.post("/emails", {"to": "ada@mail.example", "template": "welcome"})

    assert (first.status_code, second.status_code) == (503, 202)
    assert facilities.transport.stats("default").live.waiting == 1


def test_a_stream_is_not_compressed():
    request, job = HttpRequest(), SimpleNamespace(ended=False)
    request.META["HTTP_ACCEPT_ENCODING"] = "gzip"
    streamed: Any = asyncio.run(live.answer(request, job, caller="token", allowed=lambda: True))  # type: ignore[arg-type]
    response = GZipMiddleware(lambda request: None).process_response(request, streamed)

    assert response.headers["Content-Encoding"] == "identity"


@pytest.mark.parametrize("name", [7_000_001, uuid.UUID(int=7)])
def test_a_user_name_need_not_be_a_text(name):
    request, owner = HttpRequest(), User(username="ada")
    owner.get_username = lambda: name  # type: ignore[method-assign]  USERNAME_FIELD of another type
    request.user = owner  # type: ignore[assignment]

    with act("token.rename", who=Who.of_request(request), detail={"owner": Who.of_request(request).name}):
        pass

    token: Any = SimpleNamespace(owner=owner, prefix="abc")
    assert (AuditEntry.objects.get().who, Who.of_token(token).name) == (str(name), str(name))


def test_a_user_model_need_not_have_the_mixin_of_permissions_and_gets_no_reverse_name_of_a_token():
    user: Any = SimpleNamespace(has_perm=lambda right: right == "switchyard_api.submit_work")
    request = HttpRequest()
    request.user = user

    assert covered_scopes(user) == ["submit", "read"]
    assert TokenAdmin(Token, admin.site).get_fields(request) == ("name", "scopes")
    assert Token._meta.get_field("owner").remote_field.hidden


class ReadsElsewhere:
    """Django's example of a router with a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


class OwnElsewhere:
    """A router of a project that keeps its own tables in another database, and ours beside them."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model._meta.app_label == "shop" else None

    db_for_read = db_for_write


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A second database, with our tables that rows of any database need."""
    monkeypatch.setattr(database, "KNOWN_TABLES", set())
    declared = connections.configure_settings(
        {"default": {}, "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "other.sqlite3"}}
    )
    monkeypatch.setitem(connections.settings, "other", declared["other"])
    made: Any = connections["other"]
    monkeypatch.setattr(made, "ensure_connection", lambda: made.connection or made.connect())  # Django refuses it here
    with made.schema_editor() as editor:
        editor.create_model(DoneOnce)
        editor.create_model(OutboxRow)
    yield made
    made.close()
    del connections["other"]


def test_a_bulk_act_goes_on_where_reads_are_of_a_replica(settings, other):
    now = timezone.now()
    row = BulkAct.objects.create(kind="letter.requeue", filter={}, total=0, created_at=now, touched_at=now)
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsElsewhere"]

    assert (claim(row.pk), claim(row.pk)) == (row.run + 1, row.run + 2)


def test_the_outbox_leaves_a_replica_out_and_no_other_database(settings, other):
    assert set(aliases()) == {"default", "other"}
    settings.DATABASE_ROUTERS = [f"{__name__}.OwnElsewhere"]
    assert set(aliases()) == {"default", "other"}

    database.KNOWN_TABLES.clear()
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsElsewhere"]

    assert aliases() == ["default"]


def test_what_is_done_once_is_forgotten_in_every_database(other):
    for alias in ("default", "other"):
        DoneOnce.objects.using(alias).create(key="old", created_at=timezone.now() - timedelta(days=8))
        DoneOnce.objects.using(alias).create(key="new", created_at=timezone.now())

    assert delete_old_keys() == 2
    assert list(DoneOnce.objects.using("other").values_list("key", flat=True)) == ["new"]
