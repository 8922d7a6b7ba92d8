"""One frame of ``manage.py switchyard status``: the overview's sentences, the doctor's exit codes, and JSON."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from switchyard.broker.interface import Facilities
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.operations.findings.finding import Finding
from tests.factories.commands import end_of
from tests.factories.pages import text_of
from tests.integration.operations.conftest import broker_away as broker_away
from tests.integration.operations.conftest import slow_pool as slow_pool
from tests.integration.operations.conftest import watcher as watcher
from tests.integration.operations.test_overview import LIVE

pytestmark = pytest.mark.django_db


def joined(text: str) -> str:
    """Return a text without spaces and marks of code, which pages and terminals set differently."""
    return "".join(text.replace("`", "").split())


def test_it_says_what_the_page_says(facilities: Facilities, watcher: Client, slow_pool: PoolReport) -> None:
    page = text_of(watcher.get(LIVE).content.decode())
    code, shown = end_of("status")

    found = json.loads(end_of("status", "--json")[1])
    assert code == 1 == found["exit_code"]
    for sentence in (found["verdict"]["sentence"], found["verdict"]["then"], *found["also"]):
        assert joined(sentence) in joined(shown)
        assert joined(sentence) in joined(page)
    assert joined(found["verdict"]["button"]) in joined(page)
    assert joined(found["verdict"]["button"]) in joined(shown)
    for pool in found["pools"]:
        assert pool["pool"] in shown


def test_its_exit_code_is_the_doctors(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "switchyard.operations.findings.examine.KeptFindings.findings",
        lambda self, wait_s=0.3: [Finding("database", "locked", "error", "the database is locked, by pid 4711")],
    )

    code, shown = end_of("status")

    assert code == 2 and shown.startswith("Database locked  The database is locked, by pid 4711.")
