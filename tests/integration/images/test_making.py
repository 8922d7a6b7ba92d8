"""A picture is fetched or read, verified and made small; what will never do is refused for good."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from apps.images import making, requests
from apps.images.errors import FetchFailed, PictureRefused
from apps.images.making import make
from apps.images.models import Picture, Thumbnail, ThumbnailState
from switchyard.middleware.errors import PermanentFailure
from tests.factories.pictures import encode, gradient
from tests.factories.staff import log_in
from tests.integration.outbound.listener import dripping, flooding, listening

pytestmark = pytest.mark.django_db
PNG = encode(gradient(), "PNG")


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
        for address in (
            reverse(f"admin:images_{name}_changelist"),
            reverse(f"admin:images_{name}_change", args=[key]),
        ):
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
def test_an_upload_is_kept_under_a_name_of_ours_whatever_it_is_called(name, storage, facilities):
    file = SimpleUploadedFile("a.png", PNG, "image/png")
    file._name = name  # past Django's own cleaning

    requests.request_by_upload("user:1", file, 50, 50)

    picture = Picture.objects.get()
    assert picture.file.name.startswith("pictures/20") and len(picture.file.name) == len("pictures/2026/11/") + 32
    kept = [path for path in storage.rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].read_bytes() == PNG
    assert len(picture.sent_name) <= 255 and "\0" not in picture.sent_name and "\n" not in picture.sent_name
    assert make(Thumbnail.objects.get().pk)["width"] == 50


def test_an_upload_that_is_gone_or_lies_is_refused(storage, facilities):
    requests.request_by_upload("user:1", SimpleUploadedFile("a.jpg", PNG, "image/png"), 50, 50)
    requests.request_by_upload("user:1", SimpleUploadedFile("a.png", PNG, "image/gif"), 50, 50)
    requests.request_by_upload("user:1", SimpleUploadedFile("b.png", PNG, "image/png"), 50, 50)
    liar, typed, lost = Thumbnail.objects.order_by("id")
    lost.picture.file.delete(save=False)

    for thumbnail, reason in ((liar, "is named '.jpg'"), (typed, "came as 'image/gif'"), (lost, "is gone")):
        with pytest.raises(PictureRefused, match=reason):
            make(thumbnail.pk)
