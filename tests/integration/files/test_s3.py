"""Storage on S3: whole, private, below its prefix, in time; each fault and refusal is named and leaves nothing."""

from __future__ import annotations

import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import storages

from switchyard.files.addresses import StorageAddress, StorageUnavailable, address_of
from switchyard.files.bucket import SPOOL_BYTES
from switchyard.files.s3 import S3Bucket
from switchyard.operations.findings.disk import look_at_storage
from tests.factories.s3 import CREDENTIALS, S3Server


def storage_at(address: StorageAddress) -> S3Bucket:
    storage: Any = storages.create_storage(address.entry)
    assert isinstance(storage, S3Bucket)
    return storage


@pytest.fixture
def storage(bucket: StorageAddress) -> S3Bucket:
    return storage_at(bucket)


@pytest.mark.parametrize("size_bytes", [0, 1, SPOOL_BYTES, 2 * SPOOL_BYTES + 1])
def test_what_is_saved_is_read_back(storage: S3Bucket, size_bytes: int) -> None:
    content = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)

    name = storage.save("results/a.bin", ContentFile(content))

    with storage.open(name) as file:
        assert file.size == size_bytes
        assert file.read() == content
        file.seek(0)
        assert file.read(3) == content[:3]
    assert storage.size(name) == size_bytes
    assert datetime.now(UTC) - storage.get_modified_time(name) < timedelta(minutes=5)


def test_two_files_of_one_name_are_both_kept(storage: S3Bucket) -> None:
    first, second = (storage.save("a.txt", ContentFile(text)) for text in (b"one", b"two"))

    assert first != second
    with storage.open(first) as one, storage.open(second) as two:
        assert (one.read(), two.read()) == (b"one", b"two")


def test_names_are_listed_below_the_prefix_only(storage: S3Bucket) -> None:
    for name in ("a/one.txt", "a/two.txt", "a/b/three.txt", "top.txt"):
        storage.save(name, ContentFile(b"x"))
    storage.bucket.put_object(Key="others.txt", Body=b"x")

    assert storage.listdir("") == (["a"], ["top.txt"])
    assert storage.listdir("a") == (["b"], ["one.txt", "two.txt"])
    with pytest.raises(SuspiciousOperation):
        storage.exists("a/../../others.txt")


def test_a_removed_file_is_missing_and_may_be_removed_again(storage: S3Bucket) -> None:
    name = storage.save("a.txt", ContentFile(b"x"))
    storage.delete(name)
    storage.delete(name)

    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)


def test_an_upload_that_fails_leaves_neither_file_nor_parts(storage: S3Bucket) -> None:
    class Torn(io.BytesIO):
        """A file that cannot be read to its end."""

        def read(self, count: int | None = -1) -> bytes:
            if self.tell() >= 2 * SPOOL_BYTES:
                raise OSError("the disk is gone")
            return super().read(count)

    with pytest.raises(OSError, match="the disk is gone"):
        storage.save("a.bin", File(Torn(b"x" * (3 * SPOOL_BYTES))))

    assert storage.listdir("") == ([], [])
    assert not list(storage.bucket.multipart_uploads.all())


def test_no_file_is_public_whatever_the_project_has_set(
    settings: Any, s3_server: S3Server, bucket: StorageAddress
) -> None:
    settings.AWS_DEFAULT_ACL, settings.AWS_S3_CUSTOM_DOMAIN = "public-read", "files.example.com"
    storage = storage_at(bucket)
    name = storage.save("a.txt", ContentFile(b"secret"))

    assert storage.url(name) == storage.download_link(name, filename="a", content_type="text/plain") == ""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{s3_server.url}/{bucket.bucket}/yard/{name}")
    assert refused.value.code == 403
    refused.value.close()


def test_a_link_downloads_one_file_for_a_while_under_its_name(s3_server: S3Server) -> None:
    storage = storage_at(s3_server.bucket("&link_s=120"))
    name = storage.save("results/a.pdf", ContentFile(b"%PDF-"))

    link = storage.download_link(name, filename="Bericht für März.pdf", content_type="application/pdf")

    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"%PDF-"
        assert answer.headers["content-disposition"].startswith("attachment; filename*=")
        assert answer.headers["content-type"] == "application/pdf"
    asked = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert (asked["X-Amz-Expires"], asked["X-Amz-Algorithm"]) == ("120", "AWS4-HMAC-SHA256")
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in link


def test_a_server_that_is_down_or_hangs_is_named_without_its_address_or_secret(own_s3_server: S3Server) -> None:
    storage = storage_at(own_s3_server.bucket())

    with own_s3_server.hanging(), pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
        storage.save("a", ContentFile(b"x"))
    own_s3_server.stop()
    for act in (
        *(lambda: storage.exists("a"), lambda: storage.open("a"), lambda: storage.save("a", ContentFile(b"x"))),
        *(lambda: storage.delete("a"), lambda: storage.listdir(""), lambda: list(storage.objects_below("a", ""))),
    ):
        with pytest.raises(StorageUnavailable) as failed:
            act()
        assert "127.0.0.1" not in str(failed.value)
        assert "EndpointConnectionError" in str(failed.value)


def test_a_bucket_that_is_not_there_is_told(s3_server: S3Server) -> None:
    storage = storage_at(address_of("TEST", s3_server.address("no-such-bucket")))

    with pytest.raises(StorageUnavailable, match="list a: NoSuchBucket"):
        storage.listdir("a")
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        storage.save("a.txt", ContentFile(b"x"))


# Beginning of the bucket's name -> status and code.
ANSWERS = {"expired": (400, "ExpiredToken"), "elsewhere": (301, "PermanentRedirect"), "denied": (403, "AccessDenied")}


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the error of its bucket."""

    def do_GET(self) -> None:
        status, code = ANSWERS[self.path.strip("/").split("-")[0]]
        body = f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode() if self.command == "GET" else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(30)


@pytest.mark.parametrize(
    ("bucket", "seen", "step"),
    [
        ("expired", "was not reached, or refuses", "the credentials in the environment"),
        ("elsewhere", "was not reached, or refuses", "SWITCHYARD_STORAGE_URL"),
        ("denied", "the server refuses this user", "check the user's rights"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(
    bucket: str, seen: str, step: str, refusing: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    address = address_of("TEST", f"s3://{bucket}-files/yard?endpoint_url={refusing}&region=us-east-1&path_style=1")
    settings.STORAGES = {**settings.STORAGES, "default": address.entry}

    (found,) = look_at_storage()

    assert seen in found.seen and ANSWERS[bucket][1] in found.seen
    assert step in found.next
    assert "127.0.0.1" not in found.seen + found.cause + found.next
