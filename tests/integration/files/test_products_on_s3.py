"""Reports, exports and pictures with their files on S3 and no local folder, from the request to the download."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, Client
from django.urls import reverse
from PIL import Image

from apps.exports import services as exports
from apps.exports.models import Export
from apps.images.models import Thumbnail
from switchyard.files.addresses import ResultsAddress
from switchyard.operations.findings.disk import STORAGE, look_at_results, look_at_storage
from switchyard.operations.findings.examine import run_checks
from tests.conftest import RunWorker
from tests.factories.callers import Caller
from tests.factories.pictures import encode, gradient
from tests.factories.s3 import S3Server
from tests.factories.shop import make_customer, make_invoice
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True)]


def answer_of(path: str, headers: dict[str, str] | None = None, cookies: Any = None) -> tuple[Any, bytes]:
    """Get a page from the asynchronous handler, with all of its content."""

    async def get() -> tuple[Any, bytes]:
        client = AsyncClient()
        if cookies is not None:
            client.cookies = cookies
        answer = await client.get(path.removeprefix("http://testserver"), headers=headers or {})
        if not answer.streaming:
            return answer, answer.content
        return answer, b"".join([part async for part in answer.streaming_content])

    return async_to_sync(get)()


def ended(caller: Caller, job_ids: list[str]) -> list[dict[str, Any]]:
    jobs = [caller.get(f"/jobs/{job_id}").json() for job_id in job_ids]
    return jobs if all(job["finished_at"] for job in jobs) else []


def test_every_kind_of_file_goes_to_the_bucket_and_comes_back(
    on_s3: Any, facilities: Any, run_worker: RunWorker
) -> None:
    customer = make_customer()
    make_invoice()
    caller = Caller()
    picture = SimpleUploadedFile("yard.png", encode(gradient(), "PNG"), "image/png")
    sent = [
        caller.post("/exports", {"dataset": "invoices", "format": "csv"}),
        caller.post("/exports", {"dataset": "invoices", "format": "xlsx"}),
        caller.post("/reports", {"customer_id": customer.pk, "month": "2026-10"}),
        caller.client.post(
            "/api/v1/thumbnails", {"file": picture, "width": "80", "height": "60"}, headers=caller.headers
        ),
    ]

    with run_worker("slow", "images"):
        jobs = wait_for(lambda: ended(caller, [answer.json()["job_id"] for answer in sent]), 30)

    assert [job["state"] for job in jobs] == ["succeeded"] * 4, jobs
    contents = []
    for job in jobs:
        answer, content = answer_of(job["result_url"], caller.headers)
        assert answer.status_code == 200
        assert int(answer["Content-Length"]) == job["result"]["size_bytes"] == len(content)
        assert hashlib.sha256(content).hexdigest() == job["result"]["sha256"]
        contents.append(content)
    assert contents[2].startswith(b"%PDF-")
    assert max(Image.open(io.BytesIO(contents[3])).size) == 80


def test_the_room_downloads_from_the_bucket_where_a_repeated_export_finds_its_file(
    on_s3: Any, admin_client: Client
) -> None:
    make_customer(name="Ada")
    first, again = (exports.export("customers", "csv", job_id="j1") for _ in range(2))
    address = reverse("admin:exports_export_download", args=[Export.objects.get().pk])

    answer, content = answer_of(address, cookies=admin_client.cookies)

    assert first == again
    assert (answer.status_code, b'"Ada"' in content) == (200, True)


def test_links_replace_downloads_through_the_web_where_they_are_on(
    settings: Any, s3_server: S3Server, facilities: Any, run_worker: RunWorker
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": s3_server.bucket("&link_s=60").entry}
    make_customer(name="Ada")
    caller = Caller()
    job_id = caller.post("/exports", {"dataset": "customers", "format": "csv"}).json()["job_id"]
    with run_worker("slow"):
        (job,) = wait_for(lambda: ended(caller, [job_id]), 30)

    answer, _ = answer_of(job["result_url"], caller.headers)

    assert answer.status_code == 302
    assert answer["Cache-Control"] == "no-store"
    with urllib.request.urlopen(answer["Location"]) as file:
        assert b'"Ada"' in file.read()
        assert file.headers["content-disposition"].startswith("attachment")


def test_the_doctor_tells_a_missing_bucket_from_a_server_that_is_away(settings: Any, own_s3_server: S3Server) -> None:
    address = replace(own_s3_server.bucket(), bucket="no-such-bucket")
    settings.STORAGES = {**settings.STORAGES, "default": address.entry}

    (found,) = look_at_storage()

    assert (found.severity, found.code) == ("error", "away")
    assert "the server has no such bucket (NoSuchBucket)" in found.seen
    assert found.next.startswith("make the bucket")


def test_the_doctor_reaches_the_bucket_of_results_as_well(settings: Any, own_s3_server: S3Server) -> None:
    bucket = own_s3_server.bucket()
    settings.STORAGES = {**settings.STORAGES, "default": bucket.entry}
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("s3", bucket))
    same = list(look_at_results())
    settings.STORAGES = {
        **settings.STORAGES,
        "default": replace(bucket, options=bucket.options | {"querystring_expire": 300}).entry,
    }
    same += look_at_results()
    missing = replace(bucket, bucket="no-such-bucket")
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("s3", missing))

    (found,) = look_at_results()

    assert same == [] and found.severity == "warning"
    assert "the server has no such bucket (NoSuchBucket)" in found.seen and "SWITCHYARD_RESULTS_URL" in found.next


def test_the_doctor_tells_that_there_are_no_credentials(
    settings: Any, own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    settings.STORAGES = {**settings.STORAGES, "default": own_s3_server.bucket().entry}

    (found,) = look_at_storage()

    assert "this process has no credentials" in found.seen and "AWS_ACCESS_KEY_ID" in found.cause


@pytest.mark.parametrize(
    ("path", "seen"),
    [("nowhere.Results", "cannot be imported: No module"), ("dataclasses.Field", "has no put and no get")],
)
def test_the_doctor_tells_of_a_class_of_results_that_is_not_there(settings: Any, path: str, seen: str) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("class", path=path))

    (found,) = look_at_results()

    assert found.severity == "warning" and seen in found.seen and "SWITCHYARD_RESULTS_URL" in found.next


def test_a_class_of_results_whose_module_fails_is_no_defect_of_the_doctor(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_results.py").write_text("BUCKET = {}['BUCKET']")
    monkeypatch.syspath_prepend(tmp_path)
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("class", path="broken_results.Results"))

    (found,) = run_checks(STORAGE, look_at_results, 5.0)

    assert (found.severity, found.code) == ("warning", "no_class")
    assert "broken_results.Results cannot be imported: KeyError: 'BUCKET'" in found.seen


def test_a_storage_that_is_down_is_told_by_api_room_and_doctor(
    settings: Any, own_s3_server: S3Server, admin_client: Client
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": own_s3_server.bucket().entry}
    make_customer()
    exports.export("customers", "csv", job_id="j1")
    (reached,) = look_at_storage()
    address = reverse("admin:exports_export_download", args=[Export.objects.get().pk])
    picture = SimpleUploadedFile("yard.png", encode(gradient(), "PNG"), "image/png")
    caller = Caller()

    own_s3_server.stop()
    refused = caller.client.post(
        "/api/v1/thumbnails", {"file": picture, "width": "8", "height": "6"}, headers=caller.headers
    )
    page, text = answer_of(address, cookies=admin_client.cookies)
    (away,) = look_at_storage()

    assert (refused.status_code, refused["Content-Type"]) == (503, "application/problem+json")
    assert "the storage does not answer" in refused.json()["detail"]
    assert not Thumbnail.objects.exists()
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert text.startswith(b"The storage does not answer.")
    assert (reached.severity, away.severity, away.code) == ("ok", "error", "away")
    assert "127.0.0.1" not in f"{away.seen} {away.cause}"
