"""A job that was too old to start, as the API, the list, the history and its page show it."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client

from switchyard.history.models import JobRow
from switchyard.history.writer import HistoryWriter
from tests.conftest import RunWorker
from tests.integration.jobs import probe_actors
from tests.integration.jobs.passport.test_page import READER, page_of
from tests.waiting import wait_for


def test_an_expired_job_is_shown_wherever_jobs_are(api: Client, ada: User, run_worker: RunWorker) -> None:
    sent = probe_actors.add.send_with_options(args=(1, 2), owner=f"user:{ada.pk}", max_age=20, delay=60)
    other = probe_actors.add.send_with_options(args=(1, 2), owner=f"user:{ada.pk}")
    job_id = sent.message_id

    with run_worker("default", "default-retry"):
        for each in (job_id, other.message_id):
            wait_for(lambda each=each: api.get(f"/api/v1/jobs/{each}").json()["finished_at"])
    shown = api.get(f"/api/v1/jobs/{job_id}").json()
    HistoryWriter(poll_s=0.01, pause_s=0.02).step()

    listed = api.get("/api/v1/jobs", {"state": "expired"}).json()["jobs"]
    row = JobRow.objects.get(job_id=job_id)
    page = page_of(job_id, *READER)
    assert (shown["state"], shown["reason"], shown["attempts"], shown["started_at"]) == ("expired", "max_age", 0, None)
    assert [job["id"] for job in listed] == [job_id]
    assert (row.state, row.reason, row.started_at) == ("expired", "max_age", None)
    assert "expired" in page and "max age" in page
