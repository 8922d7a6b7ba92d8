"""Endpoints of the demo when its receiver moves to another port."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.webhooks.models import Endpoint
from demo.identity import read_private, write_private
from demo.sample.preparation import move_endpoints

pytestmark = pytest.mark.django_db


def test_endpoints_follow_the_receiver_and_others_stay(tmp_path: Path) -> None:
    ours = Endpoint.objects.create(owner_key="user:1", url="http://127.0.0.1:1111/flaky", events=["a"], secret="s")
    other = Endpoint.objects.create(owner_key="user:1", url="https://example.com/hook", events=["a"], secret="s")
    kept = tmp_path / "sample.json"
    write_private(kept, {"flaky": {"id": str(ours.pk), "secret": "s", "url": ours.url}})

    assert move_endpoints(kept, "http://127.0.0.1:2222") == 1

    ours.refresh_from_db()
    other.refresh_from_db()
    assert ours.url == read_private(kept)["flaky"]["url"] == "http://127.0.0.1:2222/flaky"
    assert other.url == "https://example.com/hook"
    assert move_endpoints(kept, "http://127.0.0.1:2222") == 0


def test_nothing_to_follow_on_the_first_start(tmp_path: Path) -> None:
    assert move_endpoints(tmp_path / "sample.json", "http://127.0.0.1:2222") == 0
