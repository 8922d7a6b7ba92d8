"""Tokens, and a client of the probe API."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from switchyard.api.models import Token
from switchyard.api.tokens import create_token
from tests.factories.callers import api_user
from tests.unit.api import probe_urls

Post = Callable[..., HttpResponse]
MakeToken = Callable[..., tuple[Token, str]]


@pytest.fixture
def owner(db: None) -> User:
    return api_user("ada")


@pytest.fixture
def make_token(owner: User) -> MakeToken:
    def make(*scopes: str, user: User | None = None) -> tuple[Token, str]:
        return create_token(owner=user or owner, scopes=scopes or ("submit", "read"), name="test")

    return make


@pytest.fixture
def bearer(make_token: MakeToken) -> dict[str, str]:
    """Headers with a token that may submit and read."""
    return {"Authorization": f"Bearer {make_token()[1]}"}


@pytest.fixture
def probe(settings: Any) -> Client:
    """A client of the probe API; errors are answered, not raised."""
    settings.ROOT_URLCONF = "tests.unit.api.probe_urls"
    probe_urls.calls.clear()
    probe_urls.hold.clear()
    probe_urls.entered.clear()
    return Client(raise_request_exception=False)


@pytest.fixture
def post(probe: Client, bearer: dict[str, str]) -> Post:
    """Send JSON to the probe API: ``post("/orders", body, key=…)``."""

    def send(path: str, body: Any = None, *, key: str | None = None, **headers: str) -> HttpResponse:
        sent = bearer | headers | ({"Idempotency-Key": key} if key is not None else {})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return probe.post(f"/api/v1/probe{path}", data, content_type="application/json", headers=sent)

    return send


def problem(response: HttpResponse, status: int) -> dict[str, Any]:
    """Return the problem document of a response, checked for its form."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(response.content)
    assert document["status"] == status
    always = {"type", "title", "status", "detail"}
    assert always <= document.keys() <= always | {"errors", "outcome", "job_ids"}
    return document
