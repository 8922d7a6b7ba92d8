"""Files of jobs: under names the server makes, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from switchyard.jobs.results import is_result_name, open_result, safe_name, save_file, save_path


@pytest.fixture
def media(tmp_path: Path, settings: Any) -> Path:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return tmp_path / "media"


def test_a_file_is_stored_and_described(media: Path) -> None:
    saved = save_file("October.pdf", b"%PDF-", "application/pdf")

    assert re.fullmatch(r"results/\d{4}/\d{2}/[0-9a-f]{32}/October.pdf", saved["file"])
    assert (media / saved["file"]).read_bytes() == b"%PDF-"
    assert saved | {"file": ""} == {
        "file": "", "filename": "October.pdf", "content_type": "application/pdf", "size_bytes": 5,
        "sha256": hashlib.sha256(b"%PDF-").hexdigest(),
    }  # fmt: skip


def test_a_file_object_is_stored_from_its_start(media: Path) -> None:
    content = ContentFile(b"abc" * 100_000)
    content.read(10)

    saved = save_file("a.bin", content, "application/octet-stream")

    assert saved["size_bytes"] == 300_000
    assert (media / saved["file"]).stat().st_size == 300_000


def test_a_local_file_is_copied(media: Path, tmp_path: Path) -> None:
    local = tmp_path / "local.csv"
    local.write_bytes(b"a,b\n")

    saved = save_path("export.csv", local, "text/csv")

    assert (media / saved["file"]).read_bytes() == b"a,b\n"
    assert local.exists()


def test_a_stored_file_is_opened(media: Path) -> None:
    saved = save_file("a.txt", b"hello", "text/plain")

    opened = open_result(saved["file"])

    assert opened is not None
    with opened:
        assert opened.read() == b"hello"


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "results/2026/10/../../../../etc/passwd"),
        *("results/2026/10/" + "a" * 32 + "/../../../../canary", "results/2026/10/" + "a" * 32 + "/.hidden"),
        *("results/2026/10/" + "a" * 32 + "/a\n", "results/2026/10/" + "a" * 32 + "/a\0b", "uploads/a", "", None),
        ["results"],
    ],
)
def test_other_names_are_never_opened(media: Path, name: Any) -> None:
    assert not is_result_name(name)
    assert open_result(name) is None


def test_a_link_out_of_the_storage_is_not_followed(media: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    saved = save_file("a.txt", b"hello", "text/plain")
    (media / saved["file"]).unlink()
    (media / saved["file"]).symlink_to(canary)

    assert open_result(saved["file"]) is None


@given(st.text(max_size=300))
@hypothesis_settings(max_examples=500, deadline=None)
def test_a_safe_name_is_one_plain_visible_name(filename: str) -> None:
    name = safe_name(filename)

    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", name)
    assert safe_name(name) == name


@given(st.text(alphabet="./\\%2eabc\0~:", max_size=40))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_name_leads_out_of_the_results_folder(media: Path, filename: str) -> None:
    saved = save_file(filename, b"x", "text/plain")

    assert is_result_name(saved["file"])
    assert (media / saved["file"]).resolve().is_relative_to(media / "results")


class FullDisk(ContentFile):  # type: ignore[type-arg]
    """A file whose reader finds the disk full half-way."""

    def __init__(self) -> None:
        super().__init__(b"x" * 10)
        self.rounds = 0

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        self.rounds += 1
        yield b"x" * 5
        if self.rounds > 1:  # the first round measures
            raise OSError(errno.ENOSPC, "No space left on device")
        yield b"x" * 5


def test_a_full_disk_leaves_nothing_behind(media: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        save_file("a.txt", FullDisk(), "text/plain")

    assert [path for path in media.rglob("*") if path.is_file()] == []
