"""``manage.py switchyard jobs list``, ``cancel --filter`` and ``run-again``."""

from __future__ import annotations

import json
from unittest.mock import Mock

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from switchyard.bulk.models import BulkAct
from switchyard.jobs.queries import find_untracked
from switchyard.jobs.services import submit
from tests.factories.commands import json_of, output_of
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def test_list_prints_what_waits_and_what_has_ended() -> None:
    waiting = submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
    ended = job_row(state="dead", error_type="ValueError", error_message="no\x1b[31m").job_id

    printed = output_of("jobs", "list")

    assert waiting in printed and ended in printed and "a=1, b=2" in printed
    assert "ValueError: no\\x1b[31m" in printed
    assert "no job matches" in output_of("jobs", "list", "--actor", "nobody")


def test_list_prints_json_page_by_page() -> None:
    job_row(), job_row()

    first = json_of("jobs", "list", "--limit", "1", "--state", "succeeded,dead")
    second = json.loads(
        output_of("jobs", "list", "--json", "--limit", "1", "--after", first["after"], "--state", "succeeded")
    )

    assert first["jobs"][0]["state"] == "succeeded"
    assert first["jobs"][0]["id"] != second["jobs"][0]["id"]
    assert (second["after"], second["missing"], second["cut"]) == (None, [], [])
    assert "more: --after " in output_of("jobs", "list", "--limit", "1")


@pytest.mark.parametrize("fault", ["no such table: history", "no such column: owner"])
def test_list_says_that_the_database_is_not_migrated(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.jobs.listing.pages.search", Mock(side_effect=OperationalError(fault)))

    with pytest.raises(CommandError, match=f"the database is not migrated: {fault}; run manage.py migrate"):
        output_of("jobs", "list")


def test_cancel_with_a_filter_starts_a_bulk_act() -> None:
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    started = json_of("jobs", "cancel", "--filter", "actor=probe_add", "--reason", "wrong")

    row = BulkAct.objects.get(pk=started["bulk_act"])
    assert (row.kind, row.filter, row.total, row.reason) == ("job.cancel", {"actor": "probe_add"}, 1, "wrong")


def test_run_again_enqueues_a_new_job_with_changed_arguments() -> None:
    first = job_row(arguments='{"a": 1, "b": 2}').job_id

    sent = json_of("jobs", "run-again", first, "--set", "b=3")

    message = find_untracked(sent["id"])
    assert message is not None and message.kwargs == {"a": 1, "b": 3}
    with pytest.raises(CommandError, match="expects int"):
        output_of("jobs", "run-again", first, "--set", 'b="three"')
    with pytest.raises(CommandError, match="no JSON"):
        output_of("jobs", "run-again", first, "--set", "b=three")
