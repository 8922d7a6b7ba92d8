"""The children of a job on its page: those that run beside those that have ended."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.jobs.queries import running_jobs
from tests.conftest import RunWorker
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for


@pytest.fixture
def reader(transactional_db: None) -> Client:
    """A logged-in staff user who may view jobs."""
    return staff("view_job", name="reader")


def family_of(reader: Client, job_id: str) -> str:
    """Return the words of a job's part about its parent and children."""
    page = reader.get(reverse("switchyard-job-live", args=[job_id])).content.decode()
    part = page[page.index('aria-labelledby="family"') :]
    return " ".join(re.sub(r"<[^>]+>", " ", part[part.index(">") + 1 : part.index("</section>")]).split())


def test_a_child_that_runs_is_shown_with_those_that_ended(reader: Client, run_worker: RunWorker) -> None:
    parent = job_row(actor="probe_write").job_id
    job_row(parent=parent, actor="probe_fail", state="dead")
    running = probe_actors.steps.send_with_options(kwargs={"total": 3}, parent=parent).message_id
    stranger = probe_actors.steps.send(3).message_id

    with run_worker("default"):
        wait_for(lambda: running_jobs(parent=parent))
        found = family_of(reader, parent)
        probe_actors.go_on.set()

    assert re.fullmatch(
        rf"Parent and children running probe_steps {running[:8]} for [\d.]+ m?s dead probe_fail \w{{8}} 2.0 s "
        r"Children appear here when they start\. All its children, those that wait too",
        found,
    )
    assert stranger[:8] not in found


def test_a_child_that_runs_again_after_a_failure_is_shown_once(reader: Client, run_worker: RunWorker) -> None:
    parent = job_row(actor="probe_write").job_id
    child = probe_actors.steps.send_with_options(kwargs={"total": 3}, parent=parent).message_id
    job_row(job_id=child, parent=parent, actor="probe_steps", state="retrying")

    with run_worker("default"):
        wait_for(lambda: running_jobs(parent=parent))
        found = family_of(reader, parent)
        probe_actors.go_on.set()

    assert found.count(child[:8]) == 1 and "retrying" not in found
