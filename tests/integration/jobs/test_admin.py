"""Jobs in the admin: looked up, read, cancelled."""

from __future__ import annotations

import pytest
from django.urls import reverse

from switchyard.broker.interface import facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for

UNKNOWN = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
LOOK_UP = "switchyard-jobs"


@pytest.fixture
def job_id(transactional_db: None) -> str:
    return submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})


def story(job_id: str) -> str:
    return reverse("switchyard-job", args=[job_id])


def cancel(job_id: str) -> str:
    return reverse("switchyard-job-cancel", args=[job_id])


def test_a_failure_is_shown_escaped(transactional_db: None, run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.fail, kwargs={"reason": "<img src=x onerror=alert(1)>"})
    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) and job.ended)

    page = staff("view_job").get(story(job_id)).content.decode()

    assert "PermanentFailure" in page
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page


def test_a_job_is_cancelled_from_its_page(job_id: str) -> None:
    client = staff("view_job", "cancel_job")

    offered = cancel(job_id) in client.get(story(job_id)).content.decode()
    page = client.post(cancel(job_id), follow=True).content.decode()

    assert offered
    assert "The job was cancelled and will not start." in page
    assert cancel(job_id) not in page
    job = find_job(job_id)
    assert job is not None
    assert job.state == "cancelled"


def test_a_get_asks_and_cancels_nothing(job_id: str) -> None:
    page = staff("view_job", "cancel_job").get(cancel(job_id))

    assert page.status_code == 200
    assert "It will not start." in page.content.decode()
    assert staff("view_job").get(cancel(job_id)).status_code == 403
    assert facilities().records.read(job_id).state == "queued"  # type: ignore[union-attr]


def test_cancelling_needs_the_forms_token(job_id: str) -> None:
    client = staff("view_job", "cancel_job")
    client.handler.enforce_csrf_checks = True

    assert client.post(cancel(job_id)).status_code == 403


def test_without_the_permission_nothing_is_shown(job_id: str) -> None:
    client = staff()

    assert client.get(reverse(LOOK_UP)).status_code == 403
    assert client.get(story(job_id)).status_code == 403
    assert client.post(cancel(job_id)).status_code == 403
