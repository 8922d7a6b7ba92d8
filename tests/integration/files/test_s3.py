"""Storage on S3: whole, private, verified, in parts; each fault of the server is named and leaves nothing."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File

from switchyard.files.addresses import StorageAddress, address_of
from switchyard.files.bucket import PART_BYTES
from switchyard.files.errors import FileDamaged, StorageUnavailable
from switchyard.files.s3 import S3Storage
from tests.factories.s3 import CREDENTIALS, S3Server
from tests.integration.files.conftest import StorageAt


@pytest.fixture
def storage(bucket: StorageAddress, storage_at: StorageAt) -> S3Storage:
    return storage_at(bucket)


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_what_is_saved_is_read_back(storage: S3Storage, size_bytes: int) -> None:
    content = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)

    name = storage.save("results/a.bin", ContentFile(content))

    with storage.open(name) as file:
        assert file.size == size_bytes
        assert file.read() == content
    assert storage.size(name) == size_bytes
    assert storage.look("yard/results/a.bin").sha256 == hashlib.sha256(content).hexdigest()
    assert datetime.now(UTC) - storage.get_modified_time(name) < timedelta(minutes=5)


def test_a_file_may_be_read_in_any_order(storage: S3Storage) -> None:
    name = storage.save("a.txt", ContentFile(b"0123456789"))

    with storage.open(name) as file:
        assert file.read(3) == b"012"
        file.seek(8)
        assert file.read() == b"89"
        file.seek(0)
        assert b"".join(file.chunks(4)) == b"0123456789"


def test_two_files_of_one_name_are_both_kept(storage: S3Storage) -> None:
    first, second = (storage.save("a.txt", ContentFile(text)) for text in (b"one", b"two"))

    assert first != second
    assert [storage.open(name).read() for name in (first, second)] == [b"one", b"two"]


def test_names_are_listed_below_the_prefix_only(storage: S3Storage) -> None:
    for name in ("a/one.txt", "a/two.txt", "a/b/three.txt", "top.txt"):
        storage.save(name, ContentFile(b"x"))
    storage.client.put_object(Bucket=storage.address.bucket, Key="others.txt", Body=b"x")

    assert storage.listdir("") == (["a"], ["top.txt"])
    assert storage.listdir("a") == (["b"], ["one.txt", "two.txt"])


def test_more_names_than_a_page_are_listed(storage: S3Storage) -> None:
    for number in range(60):  # the server's page has 50
        storage.client.put_object(Bucket=storage.address.bucket, Key=f"yard/many/{number:03}", Body=b"")

    assert len(storage.listdir("many")[1]) == 60


def test_a_removed_file_is_missing_and_may_be_removed_again(storage: S3Storage) -> None:
    name = storage.save("a.txt", ContentFile(b"x"))
    storage.delete(name)
    storage.delete(name)

    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)


@pytest.mark.parametrize("name", ["../a.txt", "a/../../b", "/etc/passwd"])
def test_a_name_out_of_the_prefix_is_refused(storage: S3Storage, name: str) -> None:
    with pytest.raises(SuspiciousFileOperation):
        storage.exists(name)


def test_a_file_that_changed_is_not_handed_out(storage: S3Storage) -> None:
    name = storage.save("a.txt", ContentFile(b"as it was"))
    digest = hashlib.sha256(b"as it was").hexdigest()
    storage.client.put_object(
        Bucket=storage.address.bucket, Key=storage.key_of(name), Body=b"as it is!", Metadata={"sha256": digest}
    )

    with pytest.raises(FileDamaged, match="another SHA-256"), storage.open(name) as file:
        file.read()


def test_an_upload_that_fails_leaves_neither_file_nor_parts(storage: S3Storage) -> None:
    class Torn(io.BytesIO):
        """A file that cannot be read to its end the second time."""

        rounds = 0

        def read(self, count: int | None = -1) -> bytes:
            self.rounds += self.tell() == 0
            if self.rounds > 1 and self.tell() >= 2 * PART_BYTES:
                raise OSError("the disk is gone")
            return super().read(count)

    with pytest.raises(OSError, match="the disk is gone"):
        storage.save("a.bin", File(Torn(b"x" * (3 * PART_BYTES))))

    assert storage.listdir("") == ([], [])
    assert "Uploads" not in storage.client.list_multipart_uploads(Bucket=storage.address.bucket)


def test_an_upload_whose_last_answer_was_lost_is_kept(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = storage.client.complete_multipart_upload

    def repeated(**asked: Any) -> Any:  # as boto3 does after a time limit
        complete(**asked)
        error = {"Error": {"Code": "NoSuchUpload", "Message": "gone"}}
        raise ClientError(error, "CompleteMultipartUpload")

    monkeypatch.setattr(storage.client, "complete_multipart_upload", repeated)
    name = storage.save("a.bin", ContentFile(b"x" * (PART_BYTES + 1)))

    with storage.open(name) as file:
        assert len(file.read()) == PART_BYTES + 1


def test_no_file_is_public(storage: S3Storage) -> None:
    name = storage.save("a.txt", ContentFile(b"secret"))

    assert storage.url(name) == ""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{storage.address.endpoint_url}/{storage.address.bucket}/{storage.key_of(name)}")
    assert refused.value.code == 403
    refused.value.close()


def test_a_link_downloads_one_file_for_a_while_under_its_name(s3_server: S3Server, storage_at: StorageAt) -> None:
    storage = storage_at(s3_server.bucket("&link_s=120"))
    name = storage.save("results/a.pdf", ContentFile(b"%PDF-"))

    link = storage.link(name, filename="Bericht für März.pdf", content_type="application/pdf")

    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"%PDF-"
        assert answer.headers["content-disposition"].startswith("attachment; filename*=")
        assert answer.headers["content-type"] == "application/pdf"
    asked = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert asked["X-Amz-Expires"] == "120"
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in link


def test_a_links_signature_covers_its_key_and_its_end(s3_server: S3Server, storage_at: StorageAt) -> None:
    """The test's server verifies no signatures, so this computes them itself."""
    storage = storage_at(s3_server.bucket("&link_s=120"))
    name = storage.save("results/a.pdf", ContentFile(b"%PDF-"))
    link = storage.link(name, filename="a.pdf", content_type="application/pdf")

    assert _signature(link) == parse_qs(urlsplit(link).query)["X-Amz-Signature"][0]
    for tampered in (link.replace("a.pdf?", "b.pdf?"), link.replace("Expires=120", "Expires=9999")):
        assert tampered != link
        assert _signature(tampered) != parse_qs(urlsplit(tampered).query)["X-Amz-Signature"][0]


def _signature(link: str) -> str:
    """Return the signature that the owner of the secret would compute for a link."""
    parts = urlsplit(link)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    signer = S3SigV4QueryAuth(Credentials(*CREDENTIALS.values()), "s3", "us-east-1", int(asked["X-Amz-Expires"]))
    request = AWSRequest("GET", f"{parts.scheme}://{parts.netloc}{parts.path}", params={
        name: value for name, value in asked.items() if name != "X-Amz-Signature"
    })  # fmt: skip
    request.context["timestamp"] = asked["X-Amz-Date"]
    canonical = signer.canonical_request(AWSRequest("GET", f"{request.url}?{_query(request.params)}"))
    text = signer.string_to_sign(request, canonical.rpartition("\n")[0] + "\nUNSIGNED-PAYLOAD")
    return str(signer.signature(text, request))


def _query(asked: dict[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(asked[name], safe='-_.~')}" for name in sorted(asked))


def test_a_server_that_is_down_is_named_without_its_address_or_secret(
    own_s3_server: S3Server, storage_at: StorageAt
) -> None:
    storage = storage_at(own_s3_server.bucket(), connect_s=0.5, read_s=1, attempts=1)
    own_s3_server.stop()

    for act in (
        lambda: storage.exists("a"),
        lambda: storage.open("a"),
        lambda: storage.save("a", ContentFile(b"x")),
        lambda: storage.delete("a"),
        lambda: storage.listdir(""),
        storage.reach,
    ):
        with pytest.raises(StorageUnavailable) as failed:
            act()
        assert "127.0.0.1" not in str(failed.value)
        assert "EndpointConnectionError" in str(failed.value)


def test_a_bucket_that_is_not_there_is_told(s3_server: S3Server, storage_at: StorageAt) -> None:
    storage = storage_at(address_of("TEST", s3_server.address("no-such-bucket")))

    with pytest.raises(StorageUnavailable, match="reach its bucket: NoSuchBucket"):
        storage.reach()
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        storage.save("a.txt", ContentFile(b"x"))


def test_a_forked_process_uses_a_client_of_its_own(storage: S3Storage) -> None:
    name = storage.save("a.txt", ContentFile(b"from the parent"))
    own = id(storage.client)
    context: Any = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def read() -> None:
        answers.put((id(storage.client) != own, storage.open(name).read()))

    child = context.Process(target=read)
    child.start()
    child.join(60)

    assert answers.get() == (True, b"from the parent")
    assert storage.open(name).read() == b"from the parent"
