"""A static file that is missing is a plain 404, in development as well."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, override_settings

PATHS = ["/static/none.css", "/static/../project/settings.py", "/static/%2e%2e/%2e%2e/manage.py", "/static/"]


@pytest.mark.parametrize("path", PATHS)
@override_settings(DEBUG=True, STATIC_URL="/static/")
def test_a_missing_static_file_is_404(path: str) -> None:
    answer = async_to_sync(AsyncClient(raise_request_exception=False).get)(path)

    assert answer.status_code == 404
    assert b"payment_secret" not in answer.content


def test_a_static_file_is_served() -> None:
    answer = async_to_sync(AsyncClient().get)("/static/switchyard_operations/room.css")

    assert answer.status_code == 200
