"""The table of running jobs: job, actor, arguments, since, limit, progress, and who may see what of it."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from switchyard.jobs.presentation import arguments_of
from switchyard.jobs.queries import limit_of, running_jobs
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for


@pytest.fixture
def job_id(transactional_db: None, run_worker: RunWorker) -> Any:
    """A job that runs, with progress, until the test ends."""
    job_id = submit(probe_actors.steps, owner="user:1", kwargs={"total": 3})
    with run_worker("default"):
        wait_for(lambda: any(job.progress for job in running_jobs()))
        yield job_id
        probe_actors.go_on.set()


def test_a_running_job_is_listed_with_what_is_known_of_it(job_id: str) -> None:
    (job,) = running_jobs(queue="default", actor="probe_steps")

    assert (job.id, job.actor, job.queue, job.owner, job.attempts) == (job_id, "probe_steps", "default", "user:1", 1)
    assert arguments_of(job) == {"total": 3}
    assert job.progress == {"done": 1, "total": 3, "note": "first"}
    assert limit_of(job) == 60_000
    assert job.run_ms is not None
    assert running_jobs(queue="urgent") == running_jobs(actor="probe_add") == running_jobs(pool="mail") == []


def test_the_overview_shows_what_runs_to_who_may_see_jobs(job_id: str) -> None:
    overview = reverse("switchyard-operations")

    without = staff("view_operations").get(overview).content.decode()
    reader = staff("view_operations", "view_job").get(overview).content.decode()
    operator = staff("view_operations", "view_job", "view_arguments", "cancel_job").get(overview).content.decode()

    assert job_id not in without
    assert job_id in reader and "total=3" not in reader and "Cancel…" not in reader
    assert "total=3" in operator and "1 of 3" in operator and "Cancel…" in operator
