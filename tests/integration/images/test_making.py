"""From a URL or an upload to a thumbnail, refusals and retries, and the memory of the costliest pictures."""

import errno
import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from apps.images import making, requests
from apps.images.containers import MAX_PICTURE_BYTES, MAX_PIXELS
from apps.images.errors import FetchFailed, PictureRefused
from apps.images.making import make
from apps.images.models import Picture, Thumbnail, ThumbnailState
from switchyard.broker.interface import facilities as facilities_of
from switchyard.middleware.errors import PermanentFailure
from tests.factories.pictures import encode, flat_jpeg, flat_png, gradient
from tests.factories.staff import log_in
from tests.factories.web import download
from tests.integration.outbound.listener import dripping, flooding, listening
from tests.unit.api.conftest import problem
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("media")]
PNG = encode(gradient(), "PNG")
URL = "https://93.184.216.34/cat.png"


def test_a_fetched_picture_becomes_a_stored_thumbnail(serve, make_thumbnail):
    thumbnail = make_thumbnail(serve(PNG, path="yard.png?key=1"))

    result = make(thumbnail.pk)

    with default_storage.open(result["file"]) as stored, Image.open(stored) as made:
        assert (made.format, made.size) == ("WEBP", (100, 63))
    assert result["filename"] == "thumbnail-100x63.webp"
    assert (result["content_type"], result["width"], result["height"]) == ("image/webp", 100, 63)
    thumbnail.refresh_from_db()
    assert (thumbnail.state, thumbnail.result, thumbnail.refusal) == (ThumbnailState.MADE, result, "")
    picture = Picture.objects.get()
    assert (picture.format, picture.width, picture.height, picture.size_bytes) == ("PNG", 320, 200, len(PNG))


def test_pages_of_the_admin_load_and_show_no_query(serve, make_thumbnail, facilities):
    made, client = make_thumbnail(serve(PNG, path="yard.png?key=canary")), log_in()
    make(made.pk)

    for name, key in (("thumbnail", made.pk), ("picture", made.picture_id)):
        for address in (reverse(f"admin:images_{name}_changelist"), reverse(f"admin:images_{name}_change", args=[key])):
            page = client.get(address)
            assert page.status_code == 200
            assert "canary" not in page.content.decode()


def test_a_result_whose_file_is_gone_is_made_anew(serve, make_thumbnail):
    thumbnail = make_thumbnail(serve(PNG))
    first = make(thumbnail.pk)
    default_storage.delete(first["file"])

    second = make(thumbnail.pk)

    assert first["file"] != second["file"]
    assert default_storage.exists(second["file"])


@pytest.mark.parametrize(
    ("content", "content_type", "path"),
    [
        (PNG, "image/jpeg", "a.png"),
        (PNG, "text/html", "a.png"),
        (PNG, "image/png", "a.jpg"),
        (b"<svg/>", "image/svg+xml", "a.svg"),
        (b"", "image/png", "a.png"),
        (PNG[: len(PNG) // 2], "image/png", "a.png"),
        (b"\x89PNG\r\n\x1a\nrubbish and more rubbish", "image/png", "a.png"),
    ],
)
def test_a_picture_that_lies_is_refused_for_good(content, content_type, path, serve, make_thumbnail):
    thumbnail = make_thumbnail(serve(content, content_type, path=path))

    with pytest.raises(PictureRefused) as refused:
        make(thumbnail.pk)

    thumbnail.refresh_from_db()
    assert isinstance(refused.value, PermanentFailure)
    assert (thumbnail.state, thumbnail.refusal) == (ThumbnailState.REFUSED, str(refused.value))
    assert thumbnail.result is None


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410])
def test_an_answer_that_will_stay_so_is_final(status, serve, make_thumbnail):
    with pytest.raises(PictureRefused, match=f"127.0.0.1 answered {status}"):
        make(make_thumbnail(serve(PNG, status=status)).pk)


@pytest.mark.parametrize("status", [202, 204, 206, 408, 425, 429, 500, 502, 503])
def test_an_answer_that_may_be_better_next_time_is_tried_again(status, serve, make_thumbnail):
    thumbnail = make_thumbnail(serve(b"" if status == 204 else PNG, status=status))

    with pytest.raises(FetchFailed, match=f"answered {status}"):
        make(thumbnail.pk)

    thumbnail.refresh_from_db()
    assert thumbnail.state == ThumbnailState.WAITING


def test_a_forbidden_address_is_final(make_thumbnail):
    for url in ("http://127.0.0.1/a.png", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/a.png"):
        with pytest.raises(PictureRefused, match="not a public address"):
            make(make_thumbnail(url).pk)


def test_a_host_that_does_not_listen_is_tried_again(allow, make_thumbnail):
    with listening(lambda listener, client: None) as listener:
        url = allow(listener)

    with pytest.raises(FetchFailed, match="refused"):
        make(make_thumbnail(url).pk)


def test_an_endless_picture_is_refused_and_a_slow_one_tried_again(allow, make_thumbnail, monkeypatch):
    monkeypatch.setattr(making, "DEADLINE_S", 0.4)
    monkeypatch.setattr(making, "MAX_BYTES", 1024 * 1024)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"
    for act, failure in ((flooding(head, b"a"), PictureRefused), (dripping(head, b"a"), FetchFailed)):
        with listening(act) as listener, pytest.raises(failure):
            make(make_thumbnail(allow(listener)).pk)


def test_a_thumbnail_that_was_deleted_is_final(db):
    with pytest.raises(PermanentFailure, match="does not exist"):
        make(987_654)


def test_a_failure_names_neither_path_nor_query(serve, make_thumbnail):
    for status in (500, 404):
        with pytest.raises((FetchFailed, PictureRefused)) as failed:
            make(make_thumbnail(serve(PNG, status=status, path="canary?canary")).pk)
        assert "canary" not in str(failed.value)


HOSTILE_NAMES = [
    *("../../../etc/passwd.png", "..\\..\\evil.png", "/etc/cron.d/evil.png", "%2e%2e%2fevil.png", "evil\0.png"),
    *("a\r\nX: y.png", "." * 300 + ".png", "ä" * 300 + ".png", "con.png", "", "🙂.png"),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_upload_is_kept_under_a_name_of_ours_whatever_it_is_called(name, media, facilities):
    file = SimpleUploadedFile("a.png", PNG, "image/png")
    file._name = name  # past Django's own cleaning

    requests.request_by_upload("user:1", file, 50, 50)

    picture = Picture.objects.get()
    assert picture.file.name.startswith("pictures/20") and len(picture.file.name) == len("pictures/2026/11/") + 32
    kept = [path for path in media.rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].read_bytes() == PNG
    assert len(picture.sent_name) <= 255 and "\0" not in picture.sent_name and "\n" not in picture.sent_name
    assert make(Thumbnail.objects.get().pk)["width"] == 50


def test_an_upload_that_is_gone_or_lies_is_refused(media, facilities):
    requests.request_by_upload("user:1", SimpleUploadedFile("a.jpg", PNG, "image/png"), 50, 50)
    requests.request_by_upload("user:1", SimpleUploadedFile("a.png", PNG, "image/gif"), 50, 50)
    requests.request_by_upload("user:1", SimpleUploadedFile("b.png", PNG, "image/png"), 50, 50)
    liar, typed, lost = Thumbnail.objects.order_by("id")
    lost.picture.file.delete(save=False)

    for thumbnail, reason in ((liar, "is named '.jpg'"), (typed, "came as 'image/gif'"), (lost, "is gone")):
        with pytest.raises(PictureRefused, match=reason):
            make(thumbnail.pk)


def upload(name: str = "yard.png", content: bytes = PNG, content_type: str = "image/png") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type)


def fields(response) -> list[str]:
    return sorted({error["field"] for error in problem(response, 422)["errors"]})


def nothing_happened() -> bool:
    waiting = facilities_of().transport.stats("images").live.waiting
    return waiting == 0 and not Picture.objects.exists() and not Thumbnail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_by_url_and_by_upload_a_job_ends_with_an_image(post, serve, facilities, run_worker):
    by_url = post(json={"url": serve(PNG), "width": 64, "height": 64})
    answers = [by_url, post(file=upload(), width="80", height="9")]
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
        result, content = download(job["result_url"], post.headers)
        with Image.open(io.BytesIO(content)) as picture:
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
def test_a_wrong_upload_is_refused_by_field(post, facilities, media, form, wrong):
    for file in form.values():
        for one in file if isinstance(file, list) else [file]:
            if hasattr(one, "seek"):
                one.seek(0)

    assert fields(post(**form)) == wrong
    assert nothing_happened()
    assert not media.exists()


def test_an_upload_above_twenty_mebibytes_is_too_large(post, facilities):
    at_most = 20 * 1024 * 1024

    assert post(file=upload(content=PNG + bytes(at_most + 1 - len(PNG))), width="1", height="1").status_code == 413
    assert nothing_happened()
    assert post(file=upload(content=PNG + bytes(at_most - len(PNG))), width="1", height="1").status_code == 202


ROOT = Path(__file__).resolve().parents[3]
LARGEST = 4096


def largest_flat_jpeg(ratio: float, sampling: tuple[tuple[int, int], ...], *, progressive: bool) -> bytes:
    height = int((MAX_PIXELS["JPEG"] / ratio) ** 0.5)
    return flat_jpeg(int(height * ratio), height, sampling, progressive=progressive)


def noise(mode: str, width: int, height: int) -> Image.Image:
    """Return a picture that no encoder makes small."""
    small = random.Random(5).randbytes(width // 4 * (height // 4) * len(mode))
    return Image.frombytes(mode, (width // 4, height // 4), small).resize((width, height), Image.Resampling.NEAREST)


def still(mode: str, format_name: str, width: int, height: int, **options: object) -> bytes:
    """Return an even picture; one with alpha shows through."""
    return encode(Image.new(mode, (width, height)), format_name, **options)


COLOUR, CMYK = ((1, 1),) * 3, ((1, 1),) * 4

WORST: dict[str, tuple[Callable[[], bytes], int]] = {
    "jpeg, progressive cmyk": (lambda: largest_flat_jpeg(1, CMYK, progressive=True), LARGEST),
    "jpeg, progressive cmyk, small box": (lambda: largest_flat_jpeg(1, CMYK, progressive=True), 100),
    "jpeg, progressive cmyk, wide": (lambda: largest_flat_jpeg(84, CMYK, progressive=True), 1_000),
    "jpeg, scan by scan": (lambda: largest_flat_jpeg(1, COLOUR, progressive=False), 1_000),
    "jpeg, one scan": (lambda: encode(Image.new("RGB", (4_890, 4_890)), "JPEG"), LARGEST),
    "jpeg, noise": (lambda: encode(noise("RGB", 4_096, 4_096), "JPEG", quality=40, progressive=True), LARGEST),
    "png, interlaced, 16 bits with alpha": (lambda: flat_png(5_000, 5_000, bits=16, interlaced=True), LARGEST),
    "png, palette with alpha": (lambda: still("P", "PNG", 5_000, 5_000, transparency=0), LARGEST),
    "png, 16 bits grey": (lambda: still("I;16", "PNG", 5_000, 5_000), LARGEST),
    "png, frames": (
        lambda: encode(
            Image.new("RGBA", (5_000, 5_000)),
            "PNG", save_all=True, append_images=[Image.new("RGBA", (5_000, 5_000), (9, 9, 9, 9))],
        ),
        LARGEST,
    ),
    "gif with alpha": (lambda: still("P", "GIF", 5_000, 5_000, transparency=0), LARGEST),
    "webp, lossless with alpha": (
        lambda: encode(noise("RGBA", 4_000, 4_000), "WEBP", lossless=True, method=0, quality=0), 1_000
    ),
    "webp, lossy": (lambda: still("RGB", "WEBP", 4_000, 4_000, method=0), LARGEST),
    "webp, frames": (
        lambda: encode(
            Image.new("RGBA", (4_000, 4_000)),
            "WEBP", save_all=True, append_images=[Image.new("RGBA", (4_000, 4_000), (9, 9, 9, 9))],
        ),
        LARGEST,
    ),
}  # fmt: skip

# Of each format. The others with --long.
COSTLIEST = ("jpeg, progressive cmyk", "png, interlaced, 16 bits with alpha", "webp, lossless with alpha")


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if what in COSTLIEST else [pytest.mark.long]) for what in WORST]
)
def test_the_costliest_picture_that_is_accepted_stays_within_the_stated_memory(what, tmp_path):
    make, box = WORST[what]
    picture = tmp_path / "picture"
    picture.write_bytes(make())

    command = [sys.executable, "-m", "tests.integration.images.peak_memory", picture, str(box), str(box)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    print(f"{what}: {int(done.stdout) / 1e6:.0f} MB")
    assert 50_000_000 < int(done.stdout) <= MAX_PICTURE_BYTES
