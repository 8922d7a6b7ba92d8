"""From a request to a PDF, wrong requests, and the admin's action."""

from __future__ import annotations

import pytest
import time_machine
from django.urls import reverse

from apps.reports import services
from apps.reports.models import Report
from tests.factories.callers import Caller
from tests.factories.shop import make_customer, make_invoice
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def waiting(facilities):
    return facilities.transport.stats("slow").live.waiting


def test_an_accepted_request_ends_as_a_pdf_and_the_second_one_finds_it_unchanged(facilities, run_worker):
    customer = make_customer()
    make_invoice(customer)
    caller = Caller()

    jobs = []
    with run_worker("slow"):
        for _ in range(2):
            answer = caller.post("/reports", {"customer_id": customer.pk, "month": "2026-10"})
            assert answer.status_code == 202
            job_id = answer.json()["job_id"]
            wait_for(lambda job_id=job_id: facilities.records.read(job_id).ended)
            jobs.append(caller.get(f"/jobs/{job_id}").json())

    assert [job["state"] for job in jobs] == ["succeeded", "succeeded"]
    assert [job["result"]["unchanged"] for job in jobs] == [False, True]
    assert jobs[0]["result"]["sha256"] == jobs[1]["result"]["sha256"]
    assert jobs[0]["progress"] == {"done": 4, "total": 4, "note": "Done"}
    assert all(job["result_url"].endswith("/result") for job in jobs)


@pytest.mark.parametrize(("month", "status"), [("2026-11", 202), ("2026-12", 422)])
def test_the_running_month_has_a_statement_and_the_next_one_has_not(month, status, facilities):
    customer = make_customer()
    with time_machine.travel("2026-11-01 00:00:00+00:00", tick=True):
        answer = Caller().post("/reports", {"customer_id": customer.pk, "month": month})

    assert answer.status_code == status


def test_the_admin_regenerates_a_report(admin_client, facilities):
    services.generate(make_customer().pk, "2026-10")
    form = {"action": "regenerate", "_selected_action": [Report.objects.get().pk]}

    page = admin_client.post(reverse("admin:reports_report_changelist"), form, follow=True)

    assert waiting(facilities) == 1
    assert "1 statement is on the way" in page.content.decode()
