"""Thumbnails through the API: by URL and by upload, through a real worker to the result."""

from __future__ import annotations

import errno
import io
import json
import os

import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from apps.images.models import Picture, Thumbnail
from switchyard.broker.interface import facilities as facilities_of
from tests.factories.pictures import encode, gradient
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
URL = "https://93.184.216.34/cat.png"
PNG = encode(gradient(), "PNG")


def upload(name: str = "yard.png", content: bytes = PNG, content_type: str = "image/png") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type)


def fields(response) -> list[str]:
    document = json.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    return sorted({error["field"] for error in document["errors"]})


@async_to_sync
async def content_of(download) -> bytes:
    return b"".join([piece async for piece in download.streaming_content])


def nothing_happened() -> bool:
    waiting = facilities_of().transport.stats("images").live.waiting
    return waiting == 0 and not Picture.objects.exists() and not Thumbnail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_by_url_and_by_upload_a_job_ends_with_an_image(post, serve, facilities, run_worker):
    by_url = post(json={"url": serve(PNG), "width": 64, "height": 64})
    by_upload = post(file=upload(), width="80", height="9")
    answers = [by_url, by_upload]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert by_url.json().keys() == {"job_id", "status_url", "events_url"}

    with run_worker("images", "images-retry"):
        jobs = wait_for(
            lambda: (
                (found := [post.get(f"/api/v1/jobs/{answer.json()['job_id']}").json() for answer in answers])
                and all(job["state"] == "succeeded" for job in found)
                and found
            )
        )

    for job, size in zip(jobs, ((64, 40), (14, 9)), strict=True):
        result = post.get(job["result_url"])
        with Image.open(io.BytesIO(content_of(result))) as picture:
            assert (result.status_code, result["Content-Type"], picture.size) == (200, "image/webp", size)
        assert (job["result"]["width"], job["result"]["height"]) == size
        assert "file" not in job["result"]
        assert job["progress"]["done"] == job["progress"]["total"]


def test_a_full_disk_takes_no_upload_and_says_so(post, facilities, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused = post(file=upload(), width="80", height="80")

    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("the disk of the files is full: nothing was enqueued; send the request")
    assert nothing_happened()


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ({}, ["file", "height", "width"]),
        ({"width": "1", "height": "1"}, ["file"]),
        ({"file": "text", "width": "1", "height": "1"}, ["file"]),
        ({"file": [upload(), upload()], "width": "1", "height": "1"}, ["file"]),
        ({"file": upload(content=b""), "width": "1", "height": "1"}, ["file"]),
        ({"file": upload(), "width": "0", "height": "4097"}, ["height", "width"]),
        ({"file": upload(), "width": "١", "height": "1e2"}, ["height", "width"]),
        ({"file": upload(), "width": "-1", "height": " 1"}, ["height", "width"]),
        ({"file": upload(), "width": "9" * 5000, "height": "1"}, ["width"]),
        ({"file": upload(), "width": ["1", "2"], "height": "1"}, ["width"]),
        ({"file": upload(), "width": "1", "height": "1", "url": URL}, ["url"]),
        ({"file": upload(), "other": upload(), "width": "1", "height": "1"}, ["other"]),
        ({"file": upload(), "width": "1", "height": "1", "x": "a\0"}, ["x"]),
    ],
)
def test_a_wrong_upload_is_refused_by_field(post, facilities, storage, form, wrong):
    for file in form.values():
        for one in file if isinstance(file, list) else [file]:
            if hasattr(one, "seek"):
                one.seek(0)

    response = post(**form)

    assert response.status_code == 422
    assert fields(response) == wrong
    assert nothing_happened()
    assert not storage.exists()


def test_an_upload_above_twenty_mebibytes_is_too_large(post, facilities):
    at_most = 20 * 1024 * 1024

    assert post(file=upload(content=PNG + bytes(at_most + 1 - len(PNG))), width="1", height="1").status_code == 413
    assert nothing_happened()
    assert post(file=upload(content=PNG + bytes(at_most - len(PNG))), width="1", height="1").status_code == 202
