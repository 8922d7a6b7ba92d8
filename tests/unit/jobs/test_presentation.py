"""Files of a job's result, and ids, as the API and the admin show them."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.stores.job_records import Job
from switchyard.jobs.presentation import public_result, result_file
from switchyard.jobs.queries import is_job_id

ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
FILE = {"file": f"results/2026/11/{'a' * 32}/a.pdf", "filename": "a.pdf", "content_type": "application/pdf"}


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
