"""Settings that other projects have and this one does not: transactions around requests, compression, other users."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpRequest
from django.middleware.gzip import GZipMiddleware
from django.test import Client

from switchyard.api.models import Token
from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.jobs import live
from tests.integration.project.test_urls import bear

pytestmark = pytest.mark.django_db
API = "/api/v1/jobs/00000000-0000-0000-0000-000000000000"


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
