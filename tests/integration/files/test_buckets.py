"""Storage on S3 and on Google's: whole, private, in time; faults are named and leave nothing; memory of large files."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import storages
from django.urls import reverse
from django.utils import timezone
from google.auth.credentials import AnonymousCredentials

from apps.exports import services as exports
from apps.exports.models import Export
from apps.retention import services as retention
from apps.retention.listing import files_below
from switchyard.files.addresses import StorageAddress, StorageUnavailable, address_of
from switchyard.files.bucket import SPOOL_BYTES
from switchyard.files.s3 import S3Bucket
from switchyard.operations.findings.disk import look_at_storage
from tests.factories.endpoints import Answering, answers_of
from tests.factories.s3 import CREDENTIALS, S3Server
from tests.factories.shop import make_customer
from tests.factories.web import download


def storage_at(address: StorageAddress) -> S3Bucket:
    return storages.create_storage(address.entry)


@pytest.fixture
def storage(bucket):
    return storage_at(bucket)


@pytest.mark.parametrize("size_bytes", [0, 1, SPOOL_BYTES, 2 * SPOOL_BYTES + 1])
def test_what_is_saved_is_read_back(storage, size_bytes):
    content = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)

    name = storage.save("results/a.bin", ContentFile(content))

    with storage.open(name) as file:
        assert (file.size, file.read()) == (size_bytes, content)
        file.seek(0)
        assert file.read(3) == content[:3]
    assert storage.size(name) == size_bytes
    assert datetime.now(UTC) - storage.get_modified_time(name) < timedelta(minutes=5)


def test_two_files_of_one_name_are_both_kept(storage):
    first, second = (storage.save("a.txt", ContentFile(text)) for text in (b"one", b"two"))

    assert first != second
    with storage.open(first) as one, storage.open(second) as two:
        assert (one.read(), two.read()) == (b"one", b"two")


def test_names_are_listed_below_the_prefix_only(storage):
    for name in ("a/one.txt", "a/two.txt", "a/b/three.txt", "top.txt"):
        storage.save(name, ContentFile(b"x"))
    storage.bucket.put_object(Key="others.txt", Body=b"x")

    assert storage.listdir("") == (["a"], ["top.txt"])
    assert storage.listdir("a") == (["b"], ["one.txt", "two.txt"])
    with pytest.raises(SuspiciousOperation):
        storage.exists("a/../../others.txt")


def test_a_removed_file_is_missing_and_may_be_removed_again(storage):
    name = storage.save("a.txt", ContentFile(b"x"))
    storage.delete(name)
    storage.delete(name)

    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)


def test_an_upload_that_fails_leaves_neither_file_nor_parts(storage):
    class Torn(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() >= 2 * SPOOL_BYTES:
                raise OSError("the disk is gone")
            return super().read(count)

    with pytest.raises(OSError, match="the disk is gone"):
        storage.save("a.bin", File(Torn(b"x" * (3 * SPOOL_BYTES))))

    assert storage.listdir("") == ([], [])
    assert not list(storage.bucket.multipart_uploads.all())


def test_no_file_is_public_whatever_the_project_set(settings, s3_server, bucket):
    settings.AWS_DEFAULT_ACL, settings.AWS_S3_CUSTOM_DOMAIN = "public-read", "files.example.com"
    storage = storage_at(bucket)
    name = storage.save("a.txt", ContentFile(b"secret"))

    assert storage.url(name) == storage.download_link(name, filename="a", content_type="text/plain") == ""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{s3_server.url}/{bucket.bucket}/yard/{name}")
    assert refused.value.code == 403
    refused.value.close()


def test_a_link_downloads_one_file_for_a_while_under_its_name(s3_server):
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


def test_a_server_that_is_down_or_hangs_is_named_without_its_address_or_secret(own_s3_server):
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
        assert "127.0.0.1" not in str(failed.value) and "EndpointConnectionError" in str(failed.value)


def test_a_bucket_that_is_not_there_is_told(s3_server):
    storage = storage_at(address_of("TEST", s3_server.address("no-such-bucket")))

    with pytest.raises(StorageUnavailable, match="list a: NoSuchBucket"):
        storage.listdir("a")
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        storage.save("a.txt", ContentFile(b"x"))


# Beginning of the bucket's name -> status and code.
ANSWERS = {"expired": (400, "ExpiredToken"), "elsewhere": (301, "PermanentRedirect"), "denied": (403, "AccessDenied")}


class Refusing(Answering):
    """Answers every request with the error of its bucket."""

    def do_GET(self) -> None:
        status, code = ANSWERS[self.path.strip("/").split("-")[0]]
        body = f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode() if self.command == "GET" else b""
        self.answer(status, body, "application/xml")

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def refusing():
    with answers_of(Refusing) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("bucket", "seen", "step"),
    [
        ("expired", "was not reached, or refuses", "the credentials in the environment"),
        ("elsewhere", "was not reached, or refuses", "SWITCHYARD_STORAGE_URL"),
        ("denied", "the server refuses this user", "check the user's rights"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(bucket, seen, step, refusing, settings, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    address = address_of("TEST", f"s3://{bucket}-files/yard?endpoint_url={refusing}&region=us-east-1&path_style=1")
    settings.STORAGES = {**settings.STORAGES, "default": address.entry}

    (found,) = look_at_storage()

    assert seen in found.seen and ANSWERS[bucket][1] in found.seen
    assert step in found.next and "127.0.0.1" not in found.seen + found.cause + found.next


@pytest.fixture(scope="module")
def emulator():
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="yard-files")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def entry(emulator, request, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    entry = address_of("TEST", f"gs://yard-files/{prefix}").entry
    return {**entry, "OPTIONS": {**entry["OPTIONS"], "credentials": AnonymousCredentials()}}


@pytest.fixture
def google(entry):
    return storages.create_storage(entry)


@pytest.mark.parametrize("size_bytes", [1, SPOOL_BYTES + 1])
def test_what_is_saved_on_google_is_read_back(google, size_bytes):
    name = google.save("results/a.bin", ContentFile(b"y" * size_bytes))

    with google.open(name) as file:
        assert (file.size, file.read()) == (size_bytes, b"y" * size_bytes)
        file.seek(size_bytes - 1)
        assert file.read() == b"y"
    assert google.url(name) == google.download_link(name, filename="a", content_type="text/plain") == ""


def test_names_are_listed_and_removed(google):
    for name in ("a/one.txt", "top.txt"):
        google.save(name, ContentFile(b"x"))

    assert google.listdir("") == (["a"], ["top.txt"])
    google.delete("top.txt")
    google.delete("top.txt")
    assert not google.exists("top.txt")
    with pytest.raises(FileNotFoundError):
        google.open("top.txt")


def test_every_file_below_a_folder_is_listed_from_any_name_on(google):
    names = [google.save(f"results/{name}", ContentFile(b"xy")) for name in ("a/1.txt", "a-b/1.txt", "b.txt")]
    google.save("other/c.txt", ContentFile(b"x"))

    found = list(files_below(google, "results"))

    assert sorted((file.name, file.size_bytes) for file in found) == sorted((name, 2) for name in names)
    rest = files_below(google, "results", after=found[0].name)
    assert [file.name for file in rest] == [found[1].name, found[2].name]


@pytest.mark.django_db
def test_an_export_is_downloaded_through_the_web_and_leaves_by_its_age(entry, google, settings, admin_client):
    settings.STORAGES = {**settings.STORAGES, "default": entry}
    settings.MEDIA_ROOT = "/nonexistent"
    settings.RETENTION_DAYS = {"exports": 1}
    make_customer(name="Ada")
    exports.export("customers", "csv", job_id="j1")
    export = Export.objects.get()
    address = reverse("admin:exports_export_download", args=[export.pk])

    answer, content = download(address, cookies=admin_client.cookies)
    Export.objects.update(created_at=timezone.now() - timedelta(days=2))
    retention.work(1, for_s=60)

    assert (answer.status_code, b'"Ada"' in content) == (200, True)
    assert not Export.objects.exists() and not google.exists(export.file)


def test_a_server_down_or_hanging_hides_its_address(entry, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        google: Any = storages.create_storage(entry)
        with pytest.raises(StorageUnavailable, match="Timeout"):
            google.exists("a")
    for act in (
        lambda: google.exists("a"),
        lambda: google.save("a", ContentFile(b"x")),
        lambda: google.listdir("a"),
        lambda: google.delete("a"),
    ):
        with pytest.raises(StorageUnavailable) as failed:
            act()
        assert "127.0.0.1" not in str(failed.value)


START = """
import json, re, sys
import django
django.setup()

def peak():
    # ru_maxrss would include the parent's, from before the exec.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
"""
EXPORT = """
from django.db import connection
from django.core.files.storage import default_storage
from apps.exports.services import export

rows, file_format = int(sys.argv[1]), sys.argv[2]
export("customers", file_format, job_id=None)
with connection.cursor() as cursor:
    cursor.execute('''
        INSERT INTO shop_customer (name, email, company, country, created_at)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)
        SELECT printf('Customer %%111d', n), printf('customer.%%0220d@mail.example', n), printf('Company %%0112d', n),
               'DE', '2026-10-15 12:00:00' FROM numbers
    ''', [rows])
before = peak()
stored = export("customers", file_format, job_id=None)
print(json.dumps({**stored, "grown": peak() - before, "kept": default_storage.size(stored["file"])}))
"""
ROW_BYTES = 520
UPLOAD = """
from switchyard.jobs.results import open_result, save_file, save_path

save_file("small.csv", b"x", "text/csv")
before = peak()
stored = save_path("large.csv", sys.argv[1], "text/csv")
written = peak()
with open_result(stored["file"]) as file:
    read = sum(len(part) for part in file.chunks())
print(json.dumps({**stored, "written": written - before, "read": peak() - before, "read_bytes": read}))
"""
MEBIBYTE = 1024 * 1024
long = [pytest.mark.long, pytest.mark.timeout(900)]


def run(s3_server: S3Server, folder: Path, *words: str) -> str:
    """Run Python with a bucket and a database in a folder, and return the last line that it printed."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "SWITCHYARD_STORAGE_URL": s3_server.address(s3_server.bucket().bucket),
        "TMPDIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("\n")[0].rpartition("\n")[2]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("file_format", "rows", "at_least_bytes"),
    [
        ("csv", 50_000, 50_000 * ROW_BYTES),
        pytest.param("csv", 2_000_000, 1_000_000_000, marks=long),
        pytest.param("xlsx", 500_000, 15_000_000, marks=long),  # compressed, from 260 MB
    ],
)
def test_an_export_of_any_size_grows_by_less_than_64_mb(tmp_path, s3_server, file_format, rows, at_least_bytes):
    run(s3_server, tmp_path, "manage.py", "migrate", "--verbosity=0")
    seen = json.loads(run(s3_server, tmp_path, "-c", START + EXPORT, str(rows), file_format))

    print(f"{rows:,} rows as {file_format}: {seen['size_bytes'] / 1e6:.0f} MB, grown by {seen['grown'] / 1e6:.1f} MB")
    assert (seen["rows"], seen["kept"]) == (rows, seen["size_bytes"])
    assert seen["size_bytes"] >= at_least_bytes
    assert seen["grown"] < 64_000_000
    assert not list(tmp_path.glob("switchyard-export-*"))


@pytest.mark.parametrize("size_bytes", [64 * MEBIBYTE, pytest.param(256 * MEBIBYTE, marks=pytest.mark.long)])
def test_a_large_file_goes_to_s3_and_back_in_under_64_mb(tmp_path, s3_server, size_bytes):
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(size_bytes)

    seen = json.loads(run(s3_server, tmp_path, "-c", START + UPLOAD, str(tmp_path / "large.csv")))

    print(f"{size_bytes // MEBIBYTE} MiB: {seen['written'] / 1e6:.1f} MB to write, {seen['read'] / 1e6:.1f} MB to read")
    assert (seen["size_bytes"], seen["read_bytes"]) == (size_bytes, size_bytes)
    assert 0 < seen["written"] < 64_000_000
    assert seen["read"] < 64_000_000
