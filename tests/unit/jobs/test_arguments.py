"""Arguments that people send are read as JSON and checked; files and ids of jobs as API and admin show them."""

from __future__ import annotations

import datetime
import errno
import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import dramatiq
import pytest
from django.core.files.base import ContentFile
from django.db.models import TextChoices
from dramatiq.brokers.stub import StubBroker
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.stores.job_records import Job
from switchyard.jobs.calls import checked, from_fields, parameters_of, read_json, signature_text
from switchyard.jobs.presentation import public_result, result_file
from switchyard.jobs.queries import is_job_id
from switchyard.jobs.results import is_result_name, open_result, safe_name, save_file, save_path

DATE = datetime.date


class Address:
    """A class that JSON has no values of."""


class Status(TextChoices):
    """Choices of a model's field."""

    PAID = "paid"


def declared(function: Any, **options: Any) -> Any:
    broker = StubBroker(middleware=[])
    broker.actor_options = {*broker.actor_options, "redact"}
    return dramatiq.actor(function, broker=broker, **options)


def report(customer_id: int, month: str = "2026-10", *, kind: Literal["pdf", "csv"] = "pdf", tags: list[str] = []) -> None: ...  # fmt: skip  # noqa: B006, E501


def faults_of(function: Any, fields: dict[str, str], **options: Any) -> dict[str, str]:
    with pytest.raises(ArgumentsRefused) as caught:
        from_fields(declared(function, **options), fields)
    return caught.value.faults


def test_parameters_have_annotation_and_default_and_fields_become_named_arguments_without_defaults():
    found = {each.name: each for each in parameters_of(declared(report))}

    assert [(each.annotation, each.default, each.required) for each in found.values()] == [
        ("int", "", True), ("str", '"2026-10"', False), ("Literal['pdf', 'csv']", '"pdf"', False),
        ("list[str]", "[]", False),
    ]  # fmt: skip
    call = from_fields(declared(report), {"customer_id": "7", "month": '"2026-10"', "kind": ' "csv" ', "tags": ""})

    assert (call.args, call.kwargs) == ((), {"customer_id": 7, "kind": "csv"})


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "customer_id", "required"),
        ({"customer_id": '"7"'}, "customer_id", "expects int; this is a text"),
        ({"customer_id": "true"}, "customer_id", "expects int; this is true or false"),
        ({"customer_id": "seven"}, "customer_id", "texts stand in quotes"),
        ({"customer_id": "NaN"}, "customer_id", "NaN is not JSON"),
        ({"customer_id": "[" * 100_000}, "customer_id", "nested too deeply"),
        ({"customer_id": "7", "kind": '"doc"'}, "kind", "expects Literal"),
        ({"customer_id": "7", "tags": '["a", 1]'}, "tags", "expects list[str]; at [1] it is another value"),
    ],
)
def test_each_wrong_field_has_its_fault(fields, field, words):
    assert words in faults_of(report, fields)[field]


@pytest.mark.parametrize("text", ["2026-09", "7", "null", "[draft] June", '"2026-09', "'s-Gravenhage"])
def test_a_text_needs_no_quotes_where_the_parameter_takes_text(text):
    def file(title: str, kind: Literal["pdf", "csv"], note: str | None = "", number: int = 1) -> None: ...

    written = {"title": text, "kind": "csv", "note": "see June", "number": "7"}
    if text.startswith('"'):
        assert set(faults_of(file, written)) == {"title"}
        return
    kwargs = from_fields(declared(file), written).kwargs

    assert kwargs == {"title": text, "kind": "csv", "note": "see June", "number": 7}
    assert from_fields(declared(file), written | {"note": "null"}).kwargs["note"] is None
    assert set(faults_of(file, written | {"kind": "doc", "number": "seven"})) == {"kind", "number"}


def test_a_fault_never_quotes_the_value():
    def log_in(token: Literal["a"], other: int) -> None: ...

    faults = faults_of(log_in, {"token": '"hunter2"', "other": "hunter2"}, redact=("token", "other"))

    assert "hunter2" not in str(faults)


def test_arguments_by_place_and_variadic_ones_find_their_place():
    def many(first: int, /, second: int = 2, *rest: int, last: int = 4, **more: str) -> None: ...

    actor = declared(many)
    call = from_fields(actor, {"first": "1", "rest": "[3, 3]", "last": "5", "more": '{"x": "y"}'})
    plain = from_fields(actor, {"first": "1", "second": "7"})

    assert (call.args, call.kwargs) == ((1, 2, 3, 3), {"x": "y", "last": 5})
    assert (plain.args, plain.kwargs) == ((1,), {"second": 7})
    assert set(faults_of(many, {"first": "1", "rest": "[true]", "more": "[]"})) == {"rest", "more"}
    assert "multiple values" in str(faults_of(many, {"first": "1", "rest": "[3]", "more": '{"second": "3"}'}))


def test_annotations_that_are_not_json_are_not_compared():
    def post(to: Address, also: list[Address], at: datetime.date, missing: Unknown) -> None: ...  # noqa: F821

    fields = {"to": "{}", "also": "[1]", "at": '"2026-11-21"', "missing": "1"}

    assert from_fields(declared(post), fields).kwargs["also"] == [1]
    assert set(faults_of(post, fields | {"at": '"x"'})) == {"at"}


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        *((annotation, "2026-11-21", "2026-11-21") for annotation in (DATE, DATE | None, int | DATE)),
        (DATE, '"2026-11-21"', "2026-11-21"),
        (DATE | None, "null", None),
        (int | DATE, "7", 7),
        (Decimal, "12.50", "12.50"),
        (datetime.timedelta, "PT5M", "PT5M"),
        (Status, "paid", "paid"),
        (UUID, "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        (list[DATE], '["2026-11-21"]', ["2026-11-21"]),
    ],
)
def test_what_is_text_in_json_needs_no_quotes(annotation, text, value):
    def post(at: Any) -> None: ...

    post.__annotations__ = {"at": annotation}

    assert from_fields(declared(post), {"at": text}).kwargs == {"at": value}
    assert "expects" in faults_of(post, {"at": '{"no": 1}' if "list" in str(annotation) else "no"})["at"] or text == "7"


def test_a_call_that_does_not_fit_the_signature_is_refused():
    with pytest.raises(ArgumentsRefused, match="unexpected keyword argument 'moth'"):
        checked(declared(report), [7], {"moth": "2026-10"})
    with pytest.raises(ArgumentsRefused, match="customer_id: expects int; this is a text"):
        checked(declared(report), ["7"], {})
    assert checked(declared(report), [7], {"month": "x"}).args == (7,)


def test_a_redacted_default_is_shown_nowhere():
    def log_in(user: str, password: str = "hunter2") -> None: ...

    actor = declared(log_in, redact=("password",))

    assert parameters_of(actor)[1].default == "" and parameters_of(actor)[1].redacted
    assert signature_text(actor) == "log_in(user: str, password: str = [redacted]) -> None"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, hunter2]", "no JSON from character 5 on"),
        ('{"name": "hunter2 \\ud800"}', "half of a surrogate pair"),
        ("[" + "9" * 5_000 + "]", "too many digits; write it as text"),
        ("[" * 5_000, "nested too deeply"),
    ],
)
def test_json_that_is_none_or_that_no_message_can_have_is_refused_without_quoting_it(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_json(text)

    assert "hunter2" not in str(caught.value)
    assert read_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
FILE = {"file": f"results/2026/11/{'a' * 32}/a.pdf", "filename": "a.pdf", "content_type": "application/pdf"}


def test_a_file_is_stored_described_and_opened(media):
    saved = save_file("October.pdf", b"%PDF-", "application/pdf")
    opened = open_result(saved["file"])

    assert re.fullmatch(r"results/\d{4}/\d{2}/[0-9a-f]{32}/October.pdf", saved["file"])
    assert (media / saved["file"]).read_bytes() == b"%PDF-"
    assert saved | {"file": ""} == {
        "file": "", "filename": "October.pdf", "content_type": "application/pdf", "size_bytes": 5,
        "sha256": hashlib.sha256(b"%PDF-").hexdigest(),
    }  # fmt: skip
    with opened:
        assert opened.read() == b"%PDF-"


def test_a_file_object_is_stored_from_its_start_and_a_local_file_copied(media, tmp_path):
    content, local = ContentFile(b"abc" * 100_000), tmp_path / "local.csv"
    content.read(10)
    local.write_bytes(b"a,b\n")

    saved, copied = save_file("a.bin", content, "application/octet-stream"), save_path("b.csv", local, "text/csv")

    assert saved["size_bytes"] == (media / saved["file"]).stat().st_size == 300_000
    assert (media / copied["file"]).read_bytes() == b"a,b\n"
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
def test_other_names_are_never_opened(media, name):
    assert not is_result_name(name)
    assert open_result(name) is None


def test_a_link_out_of_the_storage_is_not_followed(media, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    saved = save_file("a.txt", b"hello", "text/plain")
    (media / saved["file"]).unlink()
    (media / saved["file"]).symlink_to(canary)

    assert open_result(saved["file"]) is None


@given(st.text(max_size=300))
@hypothesis_settings(max_examples=500, deadline=None)
def test_a_safe_name_is_one_plain_visible_name(filename):
    name = safe_name(filename)

    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", name)
    assert safe_name(name) == name


@given(st.text(alphabet="./\\%2eabc\0~:", max_size=40))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_name_leads_out_of_the_results_folder(media, filename):
    saved = save_file(filename, b"x", "text/plain")

    assert is_result_name(saved["file"])
    assert (media / saved["file"]).resolve().is_relative_to(media / "results")


def test_a_full_disk_leaves_nothing_behind(media, monkeypatch):
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


def test_where_a_file_is_stored_stays_inside():
    shown = public_result(FILE | {"pages": 3})

    assert shown == {"filename": "a.pdf", "content_type": "application/pdf", "pages": 3}
    assert (public_result({"file": "mine.txt"}), public_result([1])) == ({"file": "mine.txt"}, [1])


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
def test_only_a_stored_file_of_a_job_that_succeeded_is_served(changes, has_file):
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
def test_a_download_has_a_plain_name_and_type_whatever_its_actor_returned(given, filename, content_type):
    found = result_file(record(state="succeeded", result=FILE | given))

    assert (found["filename"], found["content_type"]) == (filename, content_type)


@pytest.mark.parametrize("name", ["filename", "content_type"])
def test_a_description_without_a_part_of_it_is_served(name):
    found = result_file(record(state="succeeded", result={key: FILE[key] for key in FILE if key != name}))

    assert found[name] in ("result", "application/octet-stream")


@pytest.mark.parametrize("text", ["", "1", ID.upper(), ID + "\n", ID[:-1], "../" + ID, ID.replace("-", "")])
def test_other_texts_are_no_job_ids(text):
    assert is_job_id(ID)
    assert not is_job_id(text)
