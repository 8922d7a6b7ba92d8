from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import redis
from django.test import Client

from switchyard.api.tokens import create_token
from tests.factories.callers import api_user

Submit = Callable[[Any], Any]


@pytest.fixture
def headers(db, django_user_model) -> dict[str, str]:
    """Headers of a request whose token may submit and read."""
    user = api_user()
    _, plain = create_token(owner=user, scopes=["submit", "read"], name="test")
    return {"Authorization": f"Bearer {plain}"}


@pytest.fixture
def submit(headers, facilities) -> Submit:

    def post(body: Any) -> Any:
        return Client().post("/api/v1/reconciliations", data=body, content_type="application/json", headers=headers)

    return post


@pytest.fixture
def full_broker(valkey: redis.Redis) -> Callable[[], AbstractContextManager[None]]:
    """Make the broker refuse every write, as a full one does: ``with full_broker(): …``."""

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        valkey.config_set("maxmemory", 1)
        try:
            yield
        finally:
            valkey.config_set("maxmemory", 0)

    return full
