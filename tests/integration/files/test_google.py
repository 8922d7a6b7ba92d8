"""Storage on Google's, beside its emulator in this process: the same files, and downloads through the web only."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from google.auth.credentials import AnonymousCredentials

from apps.exports import services as exports
from apps.exports.models import Export
from apps.retention import services as retention
from apps.retention.listing import files_below
from switchyard.files.addresses import StorageUnavailable, address_of
from switchyard.files.bucket import SPOOL_BYTES
from switchyard.files.google import GoogleBucket
from tests.factories.shop import make_customer
from tests.integration.files.test_products_on_s3 import answer_of


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="yard-files")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def entry(emulator: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    entry = address_of("TEST", f"gs://yard-files/{prefix}").entry
    return {**entry, "OPTIONS": {**entry["OPTIONS"], "credentials": AnonymousCredentials()}}


@pytest.fixture
def storage(entry: dict[str, Any]) -> GoogleBucket:
    return storages.create_storage(entry)


@pytest.mark.parametrize("size_bytes", [1, SPOOL_BYTES + 1])
def test_what_is_saved_is_read_back(storage: GoogleBucket, size_bytes: int) -> None:
    name = storage.save("results/a.bin", ContentFile(b"y" * size_bytes))

    with storage.open(name) as file:
        assert file.size == size_bytes
        assert file.read() == b"y" * size_bytes
        file.seek(size_bytes - 1)
        assert file.read() == b"y"
    assert storage.url(name) == storage.download_link(name, filename="a", content_type="text/plain") == ""


def test_names_are_listed_and_removed(storage: GoogleBucket) -> None:
    for name in ("a/one.txt", "top.txt"):
        storage.save(name, ContentFile(b"x"))

    assert storage.listdir("") == (["a"], ["top.txt"])
    storage.delete("top.txt")
    storage.delete("top.txt")
    assert not storage.exists("top.txt")
    with pytest.raises(FileNotFoundError):
        storage.open("top.txt")


def test_every_file_below_a_folder_is_listed_from_any_name_on(storage: GoogleBucket) -> None:
    names = [storage.save(f"results/{name}", ContentFile(b"xy")) for name in ("a/1.txt", "a-b/1.txt", "b.txt")]
    storage.save("other/c.txt", ContentFile(b"x"))

    found = list(files_below(storage, "results"))

    assert sorted((file.name, file.size_bytes) for file in found) == sorted((name, 2) for name in names)
    rest = files_below(storage, "results", after=found[0].name)
    assert [file.name for file in rest] == [found[1].name, found[2].name]


@pytest.mark.django_db
def test_an_export_is_downloaded_through_the_web_and_leaves_by_its_age(
    entry: dict[str, Any], storage: GoogleBucket, settings: Any, admin_client: Client
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": entry}
    settings.MEDIA_ROOT = "/nonexistent"
    settings.RETENTION_DAYS = {"exports": 1}
    make_customer(name="Ada")
    exports.export("customers", "csv", job_id="j1")
    export = Export.objects.get()
    address = reverse("admin:exports_export_download", args=[export.pk])

    answer, content = answer_of(address, cookies=admin_client.cookies)
    Export.objects.update(created_at=timezone.now() - timedelta(days=2))
    retention.work(1, for_s=60)

    assert (answer.status_code, b'"Ada"' in content) == (200, True)
    assert not Export.objects.exists()
    assert not storage.exists(export.file)


def test_a_server_that_is_down_or_hangs_is_named_without_its_address(
    entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        storage: Any = storages.create_storage(entry)
        with pytest.raises(StorageUnavailable, match="Timeout"):
            storage.exists("a")
    for act in (
        lambda: storage.exists("a"),
        lambda: storage.save("a", ContentFile(b"x")),
        lambda: storage.listdir("a"),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(StorageUnavailable) as failed:
            act()
        assert "127.0.0.1" not in str(failed.value)
