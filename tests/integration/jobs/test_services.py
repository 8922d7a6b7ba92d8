"""Work is sent, followed and stopped through the services of jobs; jobs that run, and those that were too old to."""

import uuid

import pytest
from django.db import transaction
from django.urls import reverse
from dramatiq.middleware import CurrentMessage

from switchyard.broker.errors import BrokerRefused, PayloadTooLarge, UnencodablePayload
from switchyard.broker.interface import facilities
from switchyard.history.models import JobRow
from switchyard.history.writer import HistoryWriter
from switchyard.jobs.presentation import arguments_of
from switchyard.jobs.queries import find_job, limit_of, running_jobs, visible_job
from switchyard.jobs.services import enqueue_on_commit, report_progress, submit
from switchyard.middleware.errors import ArgumentMismatch
from tests.factories.brokers import broker_without_server
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.passport.test_page import READER, page_of
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")
JOB_ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"


def state(job_id: str) -> str:
    job = find_job(job_id)
    return "" if job is None else job.state


def test_submit_takes_arguments_as_send_does(valkey):
    submit(probe_actors.add, 1, kwargs={"b": 2})
    submit(probe_actors.add, 1, b=2)
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'b'; it is declared as probe_add"):
        submit(probe_actors.add, 1)

    assert facilities().transport.stats("default").live.waiting == 2


@pytest.mark.parametrize("job_id", ["invoice-5", JOB_ID.upper(), uuid.UUID(JOB_ID)])
def test_a_job_id_that_would_never_be_found_is_refused(valkey, job_id):
    for send in (submit, enqueue_on_commit):
        with pytest.raises(ValueError, match="is not a UUID in lower case"):
            send(probe_actors.add, job_id=job_id, kwargs={"a": 1, "b": 2})

    assert facilities().transport.stats("default").live.waiting == 0


def test_a_job_is_sent_when_the_transaction_commits_from_which_its_delay_counts():
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
        later = enqueue_on_commit(probe_actors.add, 1, 2, delay_ms=60_000)
        before = find_job(job_id)

    assert (before, state(job_id), state(later)) == (None, "queued", "scheduled")


def test_a_job_is_never_sent_when_the_transaction_rolls_back():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, kwargs={"a": 1, "b": 2})
        1 / 0  # noqa: B018

    assert find_job(job_id) is None
    assert facilities().transport.stats("default").live.waiting == 0


def test_arguments_are_checked_before_the_commit():
    with transaction.atomic():
        for call in ({"kwargs": {"c": 1}}, {"a": 1, "c": 2}, {"kwarg": {"a": 1, "b": 2}}):
            with pytest.raises(ArgumentMismatch, match=r"probe_add\(a: .* at \S+probe_actors.py:\d+"):
                enqueue_on_commit(probe_actors.add, **call)
        with pytest.raises(ArgumentMismatch, match="too many positional arguments"):
            enqueue_on_commit(probe_actors.add, 1, 2, 3)


@pytest.mark.parametrize(
    ("error", "value"), [(UnencodablePayload, object()), (UnencodablePayload, {1}), (PayloadTooLarge, "x" * 2_000_000)]
)
def test_arguments_that_cannot_be_sent_are_refused_before_the_commit(error, value):
    with transaction.atomic(), pytest.raises(error):
        enqueue_on_commit(probe_actors.note, value)


def test_a_progress_report_that_is_refused_or_finds_no_broker_does_not_fail_the_job(monkeypatch, valkey):
    message = probe_actors.add.message(1, 2).copy(message_id=JOB_ID)
    monkeypatch.setattr(CurrentMessage, "get_current_message", lambda: message)
    with broker_without_server():
        report_progress(1, 2)
    valkey.set(facilities().records.keys.queue("default").jobs, "of a wrong type")

    report_progress(1, 2)

    with pytest.raises(BrokerRefused, match="WRONGTYPE"):
        find_job(JOB_ID)


@pytest.mark.parametrize(
    ("owner", "asks", "operator", "seen"),
    [
        ("user:1", "user:1", False, True),
        ("user:1", "user:2", False, False),
        ("user:1", "user:2", True, True),
        ("", "", False, False),
        ("", "user:1", False, False),
        ("", "user:1", True, True),
    ],
)
def test_owner_and_operators_see_a_job(valkey, owner, asks, operator, seen):
    job_id = submit(probe_actors.add, owner=owner, kwargs={"a": 1, "b": 2})

    assert (visible_job(job_id, owner=asks, operator=operator) is not None) == seen


def test_an_expired_job_is_shown_wherever_jobs_are(api, ada, run_worker):
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


@pytest.fixture
def job_id(transactional_db, run_worker):
    """A job that runs, with progress, until the test ends."""
    job_id = submit(probe_actors.steps, owner="user:1", kwargs={"total": 3})
    with run_worker("default"):
        wait_for(lambda: any(job.progress for job in running_jobs()))
        yield job_id
        probe_actors.go_on.set()


def test_a_running_job_is_listed_with_what_is_known_of_it(job_id):
    (job,) = running_jobs()

    assert (job.id, job.actor, job.queue, job.owner, job.attempts) == (job_id, "probe_steps", "default", "user:1", 1)
    assert arguments_of(job) == {"total": 3}
    assert (job.progress, limit_of(job)) == ({"done": 1, "total": 3, "note": "first"}, 60_000)
    assert job.run_ms is not None
    assert running_jobs("of-another") == []


def test_the_overview_shows_what_runs_to_who_may_see_jobs(job_id):
    overview = reverse("switchyard-operations")

    without = staff("view_operations").get(overview).content.decode()
    reader = staff("view_operations", "view_job").get(overview).content.decode()
    operator = staff("view_operations", "view_job", "view_arguments", "cancel_job").get(overview).content.decode()

    assert job_id not in without
    assert job_id in reader and "total=3" not in reader and "Cancel…" not in reader
    assert "total=3" in operator and "1 of 3" in operator and "Cancel…" in operator
