"""Files of jobs: under names the server makes, whole or not at all; files and ids as API and admin show them."""

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

from switchyard.broker.stores.job_records import Job
from switchyard.jobs.presentation import public_result, result_file
from switchyard.jobs.queries import is_job_id
from switchyard.jobs.results import is_result_name, open_result, safe_name, save_file, save_path

ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
FILE = {"file": f"results/2026/11/{'a' * 32}/a.pdf", "filename": "a.pdf", "content_type": "application/pdf"}


def test_a_file_is_stored_described_and_opened(media: Path) -> None:
    saved = save_file("October.pdf", b"%PDF-", "application/pdf")
    opened = open_result(saved["file"])

    assert re.fullmatch(r"results/\d{4}/\d{2}/[0-9a-f]{32}/October.pdf", saved["file"])
    assert (media / saved["file"]).read_bytes() == b"%PDF-"
    assert saved | {"file": ""} == {
        "file": "", "filename": "October.pdf", "content_type": "application/pdf", "size_bytes": 5,
        "sha256": hashlib.sha256(b"%PDF-").hexdigest(),
    }  # fmt: skip
    assert opened is not None
    with opened:
        assert opened.read() == b"%PDF-"


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


def test_a_full_disk_leaves_nothing_behind(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def chunks(file: ContentFile[bytes], chunk_size: int | None = None) -> Iterator[bytes]:
        rounds.append(1)
        yield b"x" * 5
        if len(rounds) > 1:  # the first round measures
            raise OSError(errno.ENOSPC, "No space left on device")
        yield b"x" * 5

    monkeypatch.setattr(ContentFile, "chunks", chunks)

    with pytest.raises(OSError, match="No space left"):
        save_file("a.txt", ContentFile(b"x" * 10), "text/plain")

    assert [path for path in media.rglob("*") if path.is_file()] == []


def record(**changes: Any) -> Job:
    return Job(**{"id": ID, "state": "queued"} | changes)


def test_where_a_file_is_stored_stays_inside() -> None:
    shown = public_result(FILE | {"pages": 3})

    assert shown == {"filename": "a.pdf", "content_type": "application/pdf", "pages": 3}
    assert public_result({"file": "mine.txt"}) == {"file": "mine.txt"}
    assert public_result([1]) == [1]


@pytest.mark.parametrize(
    ("changes", "has_file"),
    [
        ({"state": "succeeded", "result": FILE}, True),
        ({"state": "running", "result": FILE}, False),
        ({"state": "succeeded", "result": {"file": "../../etc/passwd"}}, False),
        ({"state": "succeeded", "result": None}, False),
        ({"state": "succeeded", "result": "text"}, False),
    ],
)
def test_only_a_stored_file_of_a_job_that_succeeded_is_served(changes: dict[str, Any], has_file: bool) -> None:
    assert (result_file(record(**changes)) is not None) == has_file


@pytest.mark.parametrize(
    ("given", "filename", "content_type"),
    [
        ({}, "a.pdf", "application/pdf"),
        ({"content_type": "text/csv; charset=utf-8"}, "a.pdf", "text/csv; charset=utf-8"),
        ({"filename": "x\r\nSet-Cookie: a=b"}, "x_Set-Cookie_a_b", "application/pdf"),
        ({"filename": None, "content_type": None}, "result", "application/octet-stream"),
        ({"content_type": "text/html\r\nSet-Cookie: a=b"}, "a.pdf", "application/octet-stream"),
        ({"content_type": "text/html\x00"}, "a.pdf", "application/octet-stream"),
    ],
)
def test_a_download_has_a_plain_name_and_type_whatever_its_actor_returned(
    given: dict[str, Any], filename: str, content_type: str
) -> None:
    found = result_file(record(state="succeeded", result=FILE | given))

    assert found is not None
    assert (found["filename"], found["content_type"]) == (filename, content_type)


@pytest.mark.parametrize("name", ["filename", "content_type"])
def test_a_description_without_a_part_of_it_is_served(name: str) -> None:
    found = result_file(record(state="succeeded", result={key: FILE[key] for key in FILE if key != name}))

    assert found is not None and found[name] in ("result", "application/octet-stream")


@pytest.mark.parametrize("text", ["", "1", ID.upper(), ID + "\n", ID[:-1], "../" + ID, ID.replace("-", "")])
def test_other_texts_are_no_job_ids(text: str) -> None:
    assert is_job_id(ID)
    assert not is_job_id(text)
