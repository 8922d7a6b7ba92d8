"""Callers of the API."""

import json
from typing import Any

from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from switchyard.api.tokens import create_token

RIGHTS = ("submit_work", "view_job", "cancel_job")


def api_user(name: str = "ada", *rights: str) -> User:
    """Return a new user whose tokens may have every scope; with ``rights``, who has these permissions alone."""
    user = User.objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights or RIGHTS))
    return user


class Caller:
    """A client with a token that may submit and read."""

    def __init__(self, name: str = "caller") -> None:
        owner = User.objects.filter(username=name).first() or api_user(name)
        self.token, secret = create_token(owner=owner, scopes=("submit", "read"), name="test")
        self.client = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {secret}"}

    def post(self, path: str, body: Any) -> HttpResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(f"/api/v1{path}", data, content_type="application/json", headers=self.headers)

    def get(self, path: str) -> HttpResponse:
        return self.client.get(f"/api/v1{path}", headers=self.headers)

    def refused(self, path: str, body: Any) -> dict[str, str]:
        """Send a body that must be answered 422 and return what is wrong, by field."""
        answer = self.post(path, body)
        assert answer.status_code == 422, answer.content
        assert answer["Content-Type"] == "application/problem+json"
        return {error["field"]: error["message"] for error in answer.json()["errors"]}
