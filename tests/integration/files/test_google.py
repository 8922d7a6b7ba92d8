"""Storage on Google's, beside its emulator in this process: the same files, and downloads through the web only."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.exports import services as exports
from apps.exports.models import Export
from switchyard.conf import switchyard_settings
from switchyard.files.addresses import StorageAddress, address_of
from switchyard.files.bucket import PART_BYTES
from switchyard.files.declared import storage_of
from switchyard.files.errors import FileDamaged, StorageUnavailable
from switchyard.files.google import GoogleStorage
from switchyard.retention import services as retention
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
def storage(emulator: str, request: pytest.FixtureRequest) -> GoogleStorage:
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return GoogleStorage(address_of("TEST", f"gs://yard-files/{prefix}?endpoint_url={emulator}"))


@pytest.mark.parametrize("size_bytes", [1, PART_BYTES + 1])
def test_what_is_saved_is_read_back(storage: GoogleStorage, size_bytes: int) -> None:
    name = storage.save("results/a.bin", ContentFile(b"y" * size_bytes))

    with storage.open(name) as file:
        assert file.size == size_bytes
        assert file.read() == b"y" * size_bytes
        file.seek(size_bytes - 1)
        assert file.read() == b"y"
    assert storage.look(storage.key_of(name)).sha256 == hashlib.sha256(b"y" * size_bytes).hexdigest()


def test_names_are_listed_and_removed(storage: GoogleStorage) -> None:
    for name in ("a/one.txt", "top.txt"):
        storage.save(name, ContentFile(b"x"))

    assert storage.listdir("") == (["a"], ["top.txt"])
    storage.delete("top.txt")
    storage.delete("top.txt")
    assert not storage.exists("top.txt")
    with pytest.raises(FileNotFoundError):
        storage.open("top.txt")


def test_every_file_below_a_folder_is_listed_from_any_name_on(storage: GoogleStorage) -> None:
    names = [storage.save(f"results/{name}", ContentFile(b"xy")) for name in ("a/1.txt", "a-b/1.txt", "b.txt")]
    storage.save("other/c.txt", ContentFile(b"x"))

    found = list(storage.files_below("results"))

    assert sorted((file.name, file.size_bytes) for file in found) == sorted((name, 2) for name in names)
    assert [file.name for file in storage.files_below("results", after=found[0].name)] == [found[1].name, found[2].name]


@pytest.mark.django_db
def test_an_export_is_downloaded_through_the_web_and_leaves_by_its_age(
    storage: GoogleStorage, settings: Any, admin_client: Client
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": storage_of(storage.address)}
    settings.MEDIA_ROOT = "/nonexistent"
    settings.SWITCHYARD = replace(switchyard_settings(), retention_days={"exports": 1})
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


def test_a_file_that_changed_is_not_handed_out(storage: GoogleStorage) -> None:
    name = storage.save("a.txt", ContentFile(b"as it was"))
    blob = storage.bucket.blob(storage.key_of(name))
    blob.metadata = {"sha256": hashlib.sha256(b"as it was").hexdigest()}
    blob.upload_from_string(b"as it is!")

    with pytest.raises(FileDamaged, match="another SHA-256"), storage.open(name) as file:
        file.read()


def test_no_file_has_a_link(storage: GoogleStorage) -> None:
    assert storage.url(storage.save("a.txt", ContentFile(b"x"))) == ""


def test_a_server_that_is_down_is_named_without_its_address(monkeypatch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address: StorageAddress = address_of("TEST", f"gs://yard-files?endpoint_url=http://127.0.0.1:{port}")
    storage, threads = GoogleStorage(address).quick(), threading.active_count()

    for act in (lambda: storage.exists("a"), lambda: storage.save("a", ContentFile(b"x")), storage.reach):
        with pytest.raises(StorageUnavailable) as failed:
            act()
        assert "127.0.0.1" not in str(failed.value)
    assert threading.active_count() < threads + 10
