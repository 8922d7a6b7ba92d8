"""Settings that other projects have and this one does not: transactions around requests, logins, compression, users."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.core.handlers.base import BaseHandler
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.middleware.gzip import GZipMiddleware
from django.test import Client
from django.urls import URLResolver

from apps.retention import urls as retention
from project.urls import urlpatterns
from switchyard.api.middleware import NAMESPACE
from switchyard.api.models import Token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.console.room_view import room_view
from switchyard.jobs import live
from switchyard.operations import urls as room
from switchyard.outbox.sends import CommitSends
from tests.factories.callers import Caller
from tests.integration.project.test_urls import bear

pytestmark = pytest.mark.django_db
API = "/api/v1/jobs/00000000-0000-0000-0000-000000000000"


def views(patterns: list[Any]) -> Iterator[Callable[..., Any]]:
    for each in patterns:
        yield from views(each.url_patterns) if isinstance(each, URLResolver) else [each.callback]


API_PATTERNS: list[Any] = [each for each in urlpatterns if getattr(each, "namespace", "") == NAMESPACE]
OURS = [*views(room.urlpatterns), *views(list(retention.urlpatterns)), *views(API_PATTERNS)]


def test_no_view_of_ours_is_within_a_transaction_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    assert len(OURS) > 100
    assert [view for view in OURS if BaseHandler().make_view_atomic(view) is not view] == []


def test_no_page_is_within_a_transaction_on_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings, "other", {"ATOMIC_REQUESTS": True})

    page = room_view(lambda request: HttpResponse())

    assert BaseHandler().make_view_atomic(page) is page


@pytest.mark.django_db(transaction=True)
def test_a_key_replays_no_answer_of_a_job_that_was_not_sent(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("part", ["", "/events", "/result"])
def test_atomic_requests_refuse_no_view_of_the_api(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User.objects.create_superuser("ada")
    client = Client()
    bear(client, user, ["read"])
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    assert client.get(f"{API}{part}").status_code == 404


def test_a_stream_is_not_compressed() -> None:
    async def events() -> Any:
        yield b"event: state\n\n"

    async def answered() -> Any:
        return live.response(events(), place=SimpleNamespace(close=lambda: None))  # type: ignore[arg-type]

    request = HttpRequest()
    request.META["HTTP_ACCEPT_ENCODING"] = "gzip"
    response = GZipMiddleware(lambda request: None).process_response(request, asyncio.run(answered()))

    assert response.headers["Content-Encoding"] == "identity"


@pytest.mark.parametrize("name", [7_000_001, uuid.UUID(int=7)])
def test_a_user_name_need_not_be_a_text(name: Any) -> None:
    request, owner = HttpRequest(), User(username="ada")
    owner.get_username = lambda: name  # type: ignore[method-assign]  USERNAME_FIELD of another type
    request.user = owner  # type: ignore[assignment]

    with act("token.rename", who=Who.of_request(request), detail={"owner": Who.of_request(request).name}):
        pass

    token: Any = SimpleNamespace(owner=owner, prefix="abc")
    assert (AuditEntry.objects.get().who, Who.of_token(token).name) == (str(name), str(name))


def test_users_have_no_reverse_name_of_a_token() -> None:
    assert Token._meta.get_field("owner").remote_field.hidden
