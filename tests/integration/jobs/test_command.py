"""``manage.py switchyard jobs``: one job's story, the list, and acts on one job or on all that match."""

from unittest.mock import Mock

import dramatiq
import pytest
from django.core.management import CommandError
from django.db import OperationalError
from dramatiq import Message

from switchyard.broker.clock import now_ms
from switchyard.bulk.models import BulkAct
from switchyard.jobs.queries import find_job, find_untracked
from switchyard.jobs.services import submit
from tests.factories.commands import json_of, output_of
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db  # the audit log
UNKNOWN = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"


@pytest.fixture
def job_id():
    return submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})


@pytest.mark.django_db(transaction=True)  # the worker writes the dead letter
def test_show_prints_where_a_job_stands_what_it_works_on_and_what_happened_to_it(run_worker):
    job_id = submit(probe_actors.fail, owner="user:1", kwargs={"reason": "\x1b[31m"})
    queued = output_of("jobs", "show", job_id)
    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) and job.ended)

    printed, shown = output_of("jobs", "show", job_id), json_of("jobs", "show", job_id)

    assert "state            queued\n" in queued and "actor            probe_fail\n" in queued
    assert "finished_at" not in queued and queued.endswith("  It has not started.\n")
    assert "owner            user:1\n" in printed
    assert 'arguments        {"reason": "\\u001b[31m"}\n' in printed
    assert "Attempt 1 started after " in printed
    assert ": PermanentFailure: " in printed
    assert "\x1b" not in printed
    assert shown["arguments"] == {"reason": "\x1b[31m"}
    assert [attempt["state"] for attempt in shown["runs"]] == ["dead"]


def test_cancel_cancels_a_job_and_with_a_filter_starts_a_bulk_act(job_id):
    assert output_of("jobs", "cancel", job_id) == f"job {job_id}: was cancelled and will not start\n"

    assert find_job(job_id).state == "cancelled"
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    started = json_of("jobs", "cancel", "--filter", "actor=probe_add", "--reason", "wrong")

    row = BulkAct.objects.get(pk=started["bulk_act"])
    assert (row.kind, row.filter, row.total, row.reason) == ("job.cancel", {"actor": "probe_add"}, 1, "wrong")


def test_run_now_starts_a_scheduled_job_and_refuses_another(job_id):
    later = submit(probe_actors.add, kwargs={"a": 1, "b": 2}, delay_ms=3_600_000)

    assert output_of("jobs", "run-now", later) == f"job {later}: starts as soon as a slot is free\n"
    assert json_of("jobs", "run-now", later) == {"id": later, "answer": "due"}
    with pytest.raises(CommandError, match="waits or runs already"):
        output_of("jobs", "run-now", job_id)
    with pytest.raises(CommandError, match="no job has this id"):
        output_of("jobs", "run-now", UNKNOWN)


@pytest.mark.parametrize("action", ["show", "cancel"])
@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "../x"])
def test_an_unknown_job_is_refused_with_exit_1(action, job_id):
    with pytest.raises(CommandError, match=f"job {job_id}: no job has this id") as refused:
        output_of("jobs", action, job_id)
    assert refused.value.returncode == 1


def test_show_says_why_a_job_is_parked(run_worker):
    broker = dramatiq.get_broker()
    unknown: Message[None] = Message("default", "nobody_has_it", (), {}, {"track": True})
    misfit: Message[None] = Message("default", "probe_add", (), {"c": 1}, {"track": True, "enqueued_at": now_ms()})
    longer: Message[None] = Message("default", "probe_add", (1, 2, 3), {}, {"track": True, "enqueued_at": now_ms()})
    with run_worker("default"):
        for message in (unknown, misfit, longer):
            broker.enqueue(message)
        for message in (unknown, misfit, longer):
            wait_for(lambda id=message.message_id: (job := find_job(id)) and job.reason == "parked")

        printed = [output_of("jobs", "show", message.message_id) for message in (unknown, misfit, longer)]

    undeclared = "no running worker has an actor 'nobody_has_it', and neither has this code: declare it in actors.py"
    assert undeclared in printed[0]
    assert "@dramatiq.actor(actor_name='nobody_has_it') if it was renamed" in printed[0]
    assert "its arguments do not fit this code: missing a required argument: 'a'" in printed[1]
    assert "at tests/integration/jobs/probe_actors.py:" in printed[1]
    assert "too many positional arguments; a step of a pipeline gets the result" in printed[2]


@pytest.fixture(autouse=True)
def database(transactional_db): ...


def test_list_prints_what_waits_and_what_has_ended():
    waiting = submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
    ended = job_row(state="dead", error_type="ValueError", error_message="no\x1b[31m").job_id

    printed = output_of("jobs", "list")

    assert waiting in printed and ended in printed and "a=1, b=2" in printed
    assert "ValueError: no\\x1b[31m" in printed
    assert "no job matches" in output_of("jobs", "list", "--actor", "nobody")


def test_list_prints_json_page_by_page():
    job_row(), job_row()

    first = json_of("jobs", "list", "--limit", "1", "--state", "succeeded,dead")
    second = json_of("jobs", "list", "--limit", "1", "--after", first["after"], "--state", "succeeded")

    assert first["jobs"][0]["state"] == "succeeded"
    assert first["jobs"][0]["id"] != second["jobs"][0]["id"]
    assert (second["after"], second["missing"], second["cut"]) == (None, [], [])
    assert "more: --after " in output_of("jobs", "list", "--limit", "1")


@pytest.mark.parametrize("fault", ["no such table: history", "no such column: owner"])
def test_list_says_that_the_database_is_not_migrated(fault, monkeypatch):
    monkeypatch.setattr("switchyard.jobs.listing.pages.search", Mock(side_effect=OperationalError(fault)))

    with pytest.raises(CommandError, match=f"the database is not migrated: {fault}; run manage.py migrate"):
        output_of("jobs", "list")


def test_run_again_enqueues_a_new_job_with_changed_arguments():
    first = job_row(arguments='{"a": 1, "b": 2}').job_id

    sent = json_of("jobs", "run-again", first, "--set", "b=3")

    message = find_untracked(sent["id"])
    assert message is not None and message.kwargs == {"a": 1, "b": 3}
    with pytest.raises(CommandError, match="expects int"):
        output_of("jobs", "run-again", first, "--set", 'b="three"')
    with pytest.raises(CommandError, match="no JSON"):
        output_of("jobs", "run-again", first, "--set", "b=three")
