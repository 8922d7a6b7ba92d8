"""Endpoints of the demo when its receiver moves to another port."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.webhooks.models import Endpoint
from demo.state import StateFolder
from demo.yard import follow_receiver

pytestmark = pytest.mark.django_db


def test_endpoints_follow_the_receiver_and_others_stay(tmp_path: Path) -> None:
    ours = Endpoint.objects.create(owner_key="user:1", url="http://127.0.0.1:1111/flaky", events=["a"], secret="s")
    other = Endpoint.objects.create(owner_key="user:1", url="https://example.com/hook", events=["a"], secret="t")
    state = StateFolder(tmp_path)

    follow_receiver(1111, "http://127.0.0.1:2222", state)

    ours.refresh_from_db()
    other.refresh_from_db()
    assert (ours.url, other.url) == ("http://127.0.0.1:2222/flaky", "https://example.com/hook")
    assert state.webhook_secrets.read_text() == "s\n"
