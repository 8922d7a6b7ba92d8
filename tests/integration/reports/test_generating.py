"""A statement's PDF says what the database says, by request and by the admin, and is written only when that changed."""

import io
import re

import pypdf
import pytest
import time_machine
from django.core.files.storage import default_storage
from django.urls import reverse

from apps.reports import services
from apps.reports.models import Report
from apps.shop.models import InvoiceLine
from switchyard.middleware.errors import PermanentFailure
from tests.factories.callers import Caller
from tests.factories.shop import make_customer, make_invoice, make_payment
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("media")]
MONTH = "2026-10"


def pages_of(result):
    with default_storage.open(result["file"]) as file:
        reader = pypdf.PdfReader(io.BytesIO(file.read()))
    return [re.sub(r"\s+", " ", page.extract_text()) for page in reader.pages]


@pytest.fixture
def ada():
    return make_customer(name="Ada Lovelace", company="Engines Ltd", email="ada@mail.example")


def test_the_pdf_has_several_numbered_pages_with_the_figures(ada):
    invoice = make_invoice(ada, total="1234.50")
    make_payment(invoice, amount="1000.00")

    pages = pages_of(services.generate(ada.pk, MONTH))

    assert len(pages) >= 2
    assert all(f"Page {number} of {len(pages)}" in page for number, page in enumerate(pages, start=1))
    drawn = ("1.5k", *["Nov", "Dec", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep"])
    for said in ("October 2026", "Engines Ltd", "Ada Lovelace", "1,234.50", "1,000.00", "234.50", *drawn):
        assert said in pages[0]
    assert invoice.number in pages[1] and "Consulting, hour" in pages[1]


def test_a_table_that_is_longer_than_a_page_runs_over_with_its_heading(ada):
    for _ in range(60):
        invoice = make_invoice(ada)
        InvoiceLine.objects.create(invoice=invoice, description="Storage, 100 GB", quantity=3, unit_price="0.00")

    pages = pages_of(services.generate(ada.pk, MONTH))

    assert len([page for page in pages if "Invoice and what it is for" in page]) >= 3
    assert "Invoiced in October 2026 6,000.00" in " ".join(pages)


def test_changed_content_is_written_to_a_new_file_and_the_row_points_to_it(ada):
    make_invoice(ada)
    first = services.generate(ada.pk, MONTH)
    make_payment(customer=ada)

    second = services.generate(ada.pk, MONTH)

    assert not second["unchanged"]
    assert first["file"] != second["file"]
    assert Report.objects.get().file == second["file"]
    assert default_storage.exists(first["file"])


def test_a_file_that_was_removed_is_written_again(ada):
    first = services.generate(ada.pk, MONTH)
    default_storage.delete(first["file"])

    second = services.generate(ada.pk, MONTH)

    assert not second["unchanged"]
    assert first["sha256"] == second["sha256"]


def test_a_month_without_anything_is_a_statement_too(ada):
    pages = pages_of(services.generate(ada.pk, "2020-02"))

    assert "No invoice was sent in February 2020." in pages[1]
    assert "Nothing is open." in pages[0]


def test_text_from_the_database_is_set_and_never_evaluated(ada):
    ada.company = '#panic("x") $1/0$ *b* \\ @ref <label> // = #include "/etc/passwd"'
    ada.save()
    make_payment(customer=ada, reference='"], #sys.inputs [')

    pages = pages_of(services.generate(ada.pk, MONTH))

    assert '#panic("x") $1/0$ *b* \\ @ref <label>' in pages[0]
    assert '"], #sys.inputs [' in " ".join(pages)


@pytest.mark.parametrize(("customer_id", "month"), [(0, MONTH), (2**70, MONTH), (None, "2026-13"), (None, "10/2026")])
def test_an_unknown_customer_or_month_fails_for_good(ada, customer_id, month):
    with pytest.raises(PermanentFailure):
        services.generate(ada.pk if customer_id is None else customer_id, month)


@pytest.mark.django_db(transaction=True)
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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("month", "status"), [("2026-11", 202), ("2026-12", 422)])
def test_the_running_month_has_a_statement_and_the_next_one_has_not(month, status, facilities):
    customer = make_customer()
    with time_machine.travel("2026-11-01 00:00:00+00:00", tick=True):
        answer = Caller().post("/reports", {"customer_id": customer.pk, "month": month})

    assert answer.status_code == status


@pytest.mark.django_db(transaction=True)
def test_the_admin_regenerates_a_report(admin_client, facilities):
    services.generate(make_customer().pk, "2026-10")
    form = {"action": "regenerate", "_selected_action": [Report.objects.get().pk]}

    page = admin_client.post(reverse("admin:reports_report_changelist"), form, follow=True)

    assert facilities.transport.stats("slow").live.waiting == 1
    assert "1 statement is on the way" in page.content.decode()
