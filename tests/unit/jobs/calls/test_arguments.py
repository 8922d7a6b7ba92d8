"""Arguments that people send are read as JSON and checked against signature and annotations."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import dramatiq
import pytest
from django.db.models import TextChoices
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.errors import ArgumentsRefused
from switchyard.jobs.calls import checked, from_fields, parameters_of, read_json, signature_text

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


def test_parameters_have_annotation_default_and_what_is_required() -> None:
    found = {each.name: each for each in parameters_of(declared(report))}

    assert [(each.annotation, each.default, each.required) for each in found.values()] == [
        ("int", "", True), ("str", '"2026-10"', False), ("Literal['pdf', 'csv']", '"pdf"', False),
        ("list[str]", "[]", False),
    ]  # fmt: skip


def test_fields_become_named_arguments_and_defaults_are_left_out() -> None:
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
def test_each_wrong_field_has_its_fault(fields: dict[str, str], field: str, words: str) -> None:
    assert words in faults_of(report, fields)[field]


@pytest.mark.parametrize("text", ["2026-09", "7", "null", "[draft] June", '"2026-09', "'s-Gravenhage"])
def test_a_text_needs_no_quotes_where_the_parameter_takes_text(text: str) -> None:
    def file(title: str, kind: Literal["pdf", "csv"], note: str | None = "", number: int = 1) -> None: ...

    written = {"title": text, "kind": "csv", "note": "see June", "number": "7"}
    if text.startswith('"'):
        assert set(faults_of(file, written)) == {"title"}
        return
    kwargs = from_fields(declared(file), written).kwargs

    assert kwargs == {"title": text, "kind": "csv", "note": "see June", "number": 7}
    assert from_fields(declared(file), written | {"note": "null"}).kwargs["note"] is None
    assert set(faults_of(file, written | {"kind": "doc", "number": "seven"})) == {"kind", "number"}


def test_a_fault_never_quotes_the_value() -> None:
    def log_in(token: Literal["a"], other: int) -> None: ...

    faults = faults_of(log_in, {"token": '"hunter2"', "other": "hunter2"}, redact=("token", "other"))

    assert "hunter2" not in str(faults)


def test_arguments_by_place_and_variadic_ones_find_their_place() -> None:
    def many(first: int, /, second: int = 2, *rest: int, last: int = 4, **more: str) -> None: ...

    actor = declared(many)
    call = from_fields(actor, {"first": "1", "rest": "[3, 3]", "last": "5", "more": '{"x": "y"}'})
    plain = from_fields(actor, {"first": "1", "second": "7"})

    assert (call.args, call.kwargs) == ((1, 2, 3, 3), {"x": "y", "last": 5})
    assert (plain.args, plain.kwargs) == ((1,), {"second": 7})
    assert set(faults_of(many, {"first": "1", "rest": "[true]", "more": "[]"})) == {"rest", "more"}
    assert "multiple values" in str(faults_of(many, {"first": "1", "rest": "[3]", "more": '{"second": "3"}'}))


def test_annotations_that_are_not_json_are_not_compared() -> None:
    def post(to: Address, also: list[Address], at: datetime.date, missing: Unknown) -> None: ...  # noqa: F821

    fields = {"to": "{}", "also": "[1]", "at": '"2026-11-21"', "missing": "1"}

    assert from_fields(declared(post), fields).kwargs["also"] == [1]
    assert set(faults_of(post, fields | {"at": '"x"'})) == {"at"}


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        *((annotation, "2026-11-21", "2026-11-21") for annotation in (DATE, DATE | None, int | DATE)),
        *((DATE, '"2026-11-21"', "2026-11-21"), (DATE | None, "null", None), (int | DATE, "7", 7)),
        *((Decimal, "12.50", "12.50"), (datetime.timedelta, "PT5M", "PT5M"), (Status, "paid", "paid")),
        (UUID, "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        (list[DATE], '["2026-11-21"]', ["2026-11-21"]),
    ],
)
def test_what_is_text_in_json_needs_no_quotes(annotation: Any, text: str, value: Any) -> None:
    def post(at: Any) -> None: ...

    post.__annotations__ = {"at": annotation}

    assert from_fields(declared(post), {"at": text}).kwargs == {"at": value}
    assert "expects" in faults_of(post, {"at": '{"no": 1}' if "list" in str(annotation) else "no"})["at"] or text == "7"


def test_a_call_that_does_not_fit_the_signature_is_refused() -> None:
    with pytest.raises(ArgumentsRefused, match="unexpected keyword argument 'moth'"):
        checked(declared(report), [7], {"moth": "2026-10"})
    with pytest.raises(ArgumentsRefused, match="customer_id: expects int; this is a text"):
        checked(declared(report), ["7"], {})
    assert checked(declared(report), [7], {"month": "x"}).args == (7,)


def test_a_redacted_default_is_shown_nowhere() -> None:
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
def test_json_that_is_none_or_that_no_message_can_have_is_refused_without_quoting_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_json(text)

    assert "hunter2" not in str(caught.value)
    assert read_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
