"""A task of ``switchyard.compat.celery`` in a real worker: its retries, its dead letter, its page in the room."""

from typing import Any

import pytest
from django.urls import reverse

from switchyard.compat.celery import shared_task
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.queries import find_job
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def call():
    """A bound task that succeeds in its second attempt, or never."""

    @shared_task(bind=True, max_retries=1, default_retry_delay=0)
    def call(self: Any, address: str) -> str:
        if self.request.retries == 0 or address == "away":
            try:
                raise ConnectionError(address)
            except ConnectionError as error:
                self.retry(exc=error, countdown=0)
        return f"{self.request.id} {self.request.retries}"

    return call


@pytest.mark.exact
def test_a_task_is_retried_and_succeeds_or_is_a_dead_letter(run_worker, call, admin_client):
    jobs = [call.delay("mended"), call.delay("away")]

    with run_worker("default", "default-retry"):
        wait_for(lambda: all((found := find_job(job.id)) and found.ended for job in jobs))

    mended, away = (find_job(job.id) for job in jobs)
    assert (mended.state, mended.attempts, mended.result) == ("succeeded", 2, f"{jobs[0].id} 1")  # type: ignore[union-attr]
    assert (away.state, away.attempts) == ("dead", 2)  # type: ignore[union-attr]
    row = DeadLetter.objects.get()
    assert (row.message_id, row.reason, row.error) == (jobs[1].id, "exhausted", "away")
    page = admin_client.get(reverse("admin:switchyard_jobs_job_changelist") + f"{jobs[1].id}/", follow=True)
    assert page.status_code == 200
    assert "ConnectionError" in page.content.decode()
