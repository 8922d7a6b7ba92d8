"""A job that has not started is edited: arguments and due time, in one step at the broker, with an audit row."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities
from switchyard.jobs.passport.act_views import edit_job, editable_job
from switchyard.jobs.queries import families, find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.integration.jobs import probe_actors
from tests.integration.jobs.passport.test_page import OPERATOR, READER, page_of, staff
from tests.waiting import wait_for

HOUR_MS = 3_600_000
ME = Who("a.lind", "page")


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


@pytest.fixture
def pin_actor() -> Iterator[Any]:
    """An actor with an argument that nobody may see."""
    broker = dramatiq.get_broker()

    def charge(amount: int, pin: str, note: str = "") -> None: ...

    yield dramatiq.actor(charge, broker=broker, actor_name="probe_charge", queue_name="default", redact=("pin",))
    del broker.actors["probe_charge"]


def address_of(job_id: str) -> str:
    return reverse("switchyard-job-edit", args=[job_id])


def waiting(**kwargs: Any) -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2, **kwargs})


def later(**kwargs: Any) -> str:
    return submit(probe_actors.add, delay_ms=HOUR_MS, kwargs={"a": 1, "b": 2, **kwargs})


def arguments_of(job_id: str) -> dict[str, Any]:
    message = facilities().transport.find_message("default", job_id)
    assert message is not None
    return dict(message.kwargs)


def post(client: Client, job_id: str, **data: str) -> Any:
    return client.post(address_of(job_id), data)


def test_the_page_changes_arguments_and_due_time_of_a_scheduled_job() -> None:
    job_id, client = later(), staff(*OPERATOR)
    due = datetime_of(now_ms()) + timedelta(hours=5)
    form = html.unescape(client.get(address_of(job_id)).content.decode())

    answer = post(client, job_id, arguments='{"a": 5, "b": 2}', due=f"{due:%Y-%m-%dT%H:%M:%S}", reason="wrong sum")

    assert '"a": 1' in form and 'type="datetime-local"' in form and "It has not started" in form
    assert answer.status_code == 302
    assert arguments_of(job_id) == {"a": 5, "b": 2}
    job = find_job(job_id)
    assert job is not None and job.state == "scheduled" and job.due_at == int(due.timestamp()) * 1_000
    (score,) = [family.calls.command("ZSCORE", family.keys.due("live"), job_id) for family in families(["default"])]
    assert int(float(score)) == job.due_at
    row = AuditEntry.objects.get(act="job.edit")
    assert (row.target, row.count, row.reason) == (job_id, 1, "wrong sum")
    assert row.detail["changed"]["a"] == {"from": "1", "to": "5"} and "(due)" in row.detail["changed"]


def test_a_waiting_job_runs_with_its_new_arguments(run_worker: RunWorker) -> None:
    job_id = waiting()

    post(staff(*OPERATOR), job_id, arguments='{"a": 40, "b": 2}')
    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) is not None and job.state == "succeeded")

    job = find_job(job_id)
    assert job is not None and job.result == {"sum": 42}


def test_a_job_that_has_started_is_refused_in_words(run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.steps, kwargs={"total": 2})
    seen = editable_job(job_id)
    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) is not None and job.state == "running")
        with pytest.raises(ActRefused, match="a worker has it already, with the arguments that it has; cancel it"):
            edit_job(seen, text='{"total": 9}', due_at=None, who=ME)
        answer = staff(*OPERATOR).get(address_of(job_id), follow=True).content.decode()
        probe_actors.go_on.set()

    assert "A worker has it already" in answer
    assert AuditEntry.objects.get(act="job.edit").count == 0


def test_what_somebody_else_changed_meanwhile_is_not_overwritten() -> None:
    job_id = waiting()
    first, second = editable_job(job_id), editable_job(job_id)
    edit_job(first, text='{"a": 3, "b": 2}', due_at=None, who=ME)

    with pytest.raises(ActRefused, match="it was changed meanwhile"):
        edit_job(second, text='{"a": 4, "b": 2}', due_at=None, who=ME)
    answer = post(staff(*OPERATOR), job_id, arguments='{"a": 4, "b": 2}', version=second.version)

    assert answer.status_code == 409 and "somebody changed its arguments meanwhile" in answer.content.decode()
    assert arguments_of(job_id) == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arguments": '{"a": "five", "b": 2}'}, "a: expects int; this is a text"),
        ({"arguments": '{"a": 5}'}, "the actor is declared as probe_add("),
        ({"arguments": "[1, 2"}, "they are not JSON"),
        ({"due": "2001-01-01T00:00:00"}, "is over; write a later time"),
        ({"due": "2999-01-01T00:00:00"}, "is too far"),
        ({"due": "soon"}, "is not a time"),
        ({}, "nothing is different"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_changes_nothing(given: dict[str, str], words: str) -> None:
    job_id = later()
    before = find_job(job_id)

    answer = post(staff(*OPERATOR), job_id, **{"arguments": editable_job(job_id).text, **given})

    assert answer.status_code in (409, 422)
    assert words in html.unescape(answer.content.decode())
    assert find_job(job_id) == before
    assert not AuditEntry.objects.exists()


def test_hidden_values_stay_and_are_shown_to_nobody(pin_actor: Any) -> None:
    job_id = submit(pin_actor, kwargs={"amount": 1, "pin": "4321"})
    client = staff(*OPERATOR)
    page = html.unescape(client.get(address_of(job_id)).content.decode())
    text = re.search(r"<textarea[^>]*name=\"arguments\"[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert text is not None

    post(client, job_id, arguments=json.dumps({**json.loads(text[1]), "amount": 7}))

    assert "4321" not in page
    assert arguments_of(job_id) == {"amount": 7, "pin": "4321"}
    assert "4321" not in json.dumps(AuditEntry.objects.get().detail)


def test_without_the_right_to_view_arguments_only_the_time_is_edited() -> None:
    scheduled, queued = later(), waiting()
    client = staff("view_job", "run_job")
    form = client.get(address_of(scheduled)).content.decode()

    answer = post(
        client, scheduled, arguments='{"a": 9, "b": 9}', due=f"{datetime_of(now_ms() + 9 * HOUR_MS):%Y-%m-%dT%H:%M}"
    )

    assert 'name="arguments"' not in form and answer.status_code == 302
    assert arguments_of(scheduled) == {"a": 1, "b": 2}
    assert client.get(address_of(queued)).status_code == 403
    assert staff(*READER).get(address_of(scheduled)).status_code == 403
    assert address_of(scheduled) in page_of(scheduled, *OPERATOR) and address_of(scheduled) not in page_of(
        scheduled, *READER
    )


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("switchyard", "jobs", "edit", *arguments, stdout=out)
    return out.getvalue()
