"""Findings speak of what the project has: its settings, or environment variables that it reads."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from django.conf import settings
from django.test import override_settings

from switchyard.broker.errors import CHECK_THE_ADDRESS
from switchyard.conf import SwitchyardSettings, read
from switchyard.operations.findings.database import REFUSALS
from switchyard.operations.findings.finding import FindingGroup

HOST = read({"TOPOLOGY": "project.topology.YARD", "BROKER_URL": "redis://v:6390/0"}, {}, debug=True)


@pytest.mark.parametrize(
    "text", [refusal.next for refusal in REFUSALS] + ["point SWITCHYARD_BROKER_URL at the primary", CHECK_THE_ADDRESS]
)
def test_a_host_project_is_not_told_of_variables_that_it_does_not_read(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delitem(sys.modules, "dj_database_url", raising=False)
    with override_settings(SWITCHYARD=HOST):
        found = FindingGroup("database").finding("error", "away", text, text, text, then=text)

    assert found.seen == found.cause == found.next == found.then
    assert "DATABASE_" not in found.next and "SWITCHYARD_" not in found.next


def test_this_project_is_told_of_its_variables() -> None:
    own: SwitchyardSettings = replace(settings.SWITCHYARD, broker_named_by="SWITCHYARD_BROKER_URL")
    text = "Set DATABASE_BOUNCED=1, and check SWITCHYARD_BROKER_URL"
    with override_settings(SWITCHYARD=own):
        assert FindingGroup("database").finding("error", "away", text, text, text).next == text
