"""Jobs in the admin: looked up, read, cancelled."""

from __future__ import annotations

import pytest
from django.urls import reverse

from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors


@pytest.fixture
def job_id(transactional_db: None) -> str:
    return submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})


def story(job_id: str) -> str:
    return reverse("switchyard-job", args=[job_id])


def cancel(job_id: str) -> str:
    return reverse("switchyard-job-cancel", args=[job_id])


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
