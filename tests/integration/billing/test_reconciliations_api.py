"""A month is reconciled from the API to the job's result, by a real worker."""

from __future__ import annotations

import pytest

from apps.billing.actors import reconcile_current_month, reconcile_month
from apps.billing.models import Reconciliation
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit as send
from tests.factories.shop import make_invoice, make_payment
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
LIVE = pytest.mark.django_db(transaction=True)  # a worker reads what the test writes


def finished(job_id: str):
    def look():
        job = find_job(job_id)
        return job if job is not None and job.ended else None

    return wait_for(look, what=f"job {job_id} ended")


@LIVE
def test_a_month_is_reconciled_and_the_result_is_kept(submit, run_worker):
    make_payment(make_invoice())
    make_invoice()

    answer = submit({"month": "2026-10"})
    with run_worker("billing"):
        job = finished(answer.json()["job_id"])

    assert answer.status_code == 202
    assert job.state == "succeeded"
    assert job.result == {"matched": 1, "unmatched": 1, "corrected": 1}
    assert (job.progress["done"], job.progress["total"]) == (2, 2)


@LIVE
def test_a_hand_made_message_with_a_wrong_month_is_dead_at_once(facilities, run_worker):
    job_id = send(reconcile_month, kwargs={"month": "2026-13"})
    with run_worker("billing"):
        job = finished(job_id)

    assert (job.state, job.reason, job.attempts) == ("dead", "permanent", 1)


@LIVE
def test_the_nightly_run_covers_the_running_month_and_the_one_before(facilities, run_worker, time_machine):
    time_machine.move_to("2027-01-05T02:15:00Z", tick=True)
    with run_worker("billing"):
        job = finished(send(reconcile_current_month, kwargs={}))

    assert list(job.result) == ["2026-12", "2027-01"]
    assert set(Reconciliation.objects.values_list("month", flat=True)) == {"2026-12", "2027-01"}
