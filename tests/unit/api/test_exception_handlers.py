"""Every refusal below /api/v1 is a problem document that says what was wrong; the OpenAPI document lists them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.urls import include, path

from switchyard.api.exception_handlers import problem_of
from switchyard.api.parsing import MAX_ERRORS, refuse_bad_text
from switchyard.api.problems import Problem
from switchyard.api.responses import job_url
from switchyard.broker.errors import QueueFull, UnencodablePayload
from switchyard.conf import read, switchyard_settings
from tests.unit.api import probe_urls
from tests.unit.api.conftest import Post, problem

GOOD = {"id": 1, "month": "2026-10"}


def test_no_line_of_the_log_is_written_by_a_stranger(caplog: pytest.LogCaptureFixture) -> None:
    request = RequestFactory().post("/api/v1/jobs/x%0A2026-11-28 CRITICAL forged")
    errors = [
        OperationalError("gone"),
        QueueFull("default", 3, 3),
        UnencodablePayload("x", "args[0]", "has a\nline"),
        KeyError(),
    ]

    for error in errors:
        problem_of(request, error)

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(errors)
    assert [line for line in lines if "\n" in line or "forged" not in line] == []


def test_a_good_body_is_taken(post: Post) -> None:
    response = post("/orders", GOOD | {"note": "Grüße", "tags": ["a"], "extra": {"deep": [1, 2.5, None]}})

    assert (response.status_code, response["Cache-Control"]) == (201, "no-store")
    assert probe_urls.calls[0]["note"] == "Grüße"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"surprise": 1}, "surprise", "is not a known field"),
        ({"id": "1"}, "id", "valid integer"),
        ({"id": True}, "id", "valid integer"),
        ({"id": 1.0}, "id", "valid integer"),
        ({"id": None}, "id", "valid integer"),
        ({"id": 0}, "id", "greater than or equal to 1"),
        ({"id": 2**63}, "id", "less than or equal to"),
        ({"month": "2026-13"}, "month", "is not a month: '2026-13'"),
        ({"month": "2026-1"}, "month", "is not a month"),
        ({"month": "0000-01"}, "month", "is not a month"),
        ({"month": "٢٠٢٦-10"}, "month", "is not a month"),
        ({"month": "2026-10\n"}, "month", "is not a month"),
        ({"month": 202610}, "month", "valid string"),
        ({"note": "x" * 256}, "note", "at most 255 characters"),
        ({"note": "two\nlines"}, "note", "control character"),
        ({"note": "nul\0"}, "note", "NUL"),
        ({"tags": ["x" * 10_001]}, "tags.0", "at most 10000 characters"),
        ({"tags": "a"}, "tags", "valid list"),
        ({"tags": [1]}, "tags.0", "valid string"),
        ({"extra": {"a": ["b", "\0"]}}, "extra.a.1", "NUL"),
        ({"extra": {"a\0b": 1}}, "extra.a\\0b (name)", "NUL"),
        ({"extra": {"a": "\ud800"}}, "extra.a", "surrogate"),
    ],
)
def test_a_wrong_field_is_named_with_its_reason(post: Post, change: dict[str, Any], field: str, message: str) -> None:
    response = post("/orders", GOOD | change)

    document = problem(response, 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert message in document["errors"][0]["message"]
    assert field in document["detail"]
    assert probe_urls.calls == []


def test_a_missing_field_is_named_in_an_answer_for_no_cache(post: Post) -> None:
    response = post("/orders", {"id": 1})

    assert problem(response, 422)["errors"] == [{"field": "month", "message": "is required"}]
    assert response["Cache-Control"] == "no-store"


def test_of_very_many_wrong_fields_only_the_first_are_named(post: Post) -> None:
    response = post("/orders", GOOD | {f"field{number}": 1 for number in range(500)})

    document = problem(response, 422)
    assert len(document["errors"]) == 50
    assert "and 499 more" in document["detail"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "is not JSON"),
        (b"{'id': 1}", "is not JSON"),
        (b'{"id": NaN}', "NaN is not a JSON number"),
        (b'{"id": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"extra": {"a": 1e999}}', "too large"),
        (b'{"id": 1, "id": 2}', "twice"),
        (b'{"id": ' + b"9" * 5000 + b"}", "a number has too many digits; send"),
        (b"\xff\xfe\xfa", "is no"),
        (b'{"note": "\xc3\x28"}', "is not UTF-8"),
        (b'{"note": "\xed\xa0\x80"}', "is not UTF-8"),
        ('{"id": 1}'.encode("utf-16"), "is not UTF-8"),
        ('{"id": 1}'.encode("utf-16-le"), "is not JSON"),
        ('{"id": 1}'.encode("utf-32-be"), "is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b'{"extra": ' + b'{"a":' * 80 + b"1" + b"}" * 80 + b"}", "nested deeper"),
    ],
)
def test_an_unreadable_body_is_400(post: Post, body: bytes, reason: str) -> None:
    response = post("/orders", body)

    assert reason in problem(response, 400)["detail"]
    assert probe_urls.calls == []


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
def test_a_body_that_is_no_object_is_422(post: Post, body: bytes) -> None:
    problem(post("/orders", body), 422)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_another_content_type_is_415(probe: Client, bearer: dict[str, str], content_type: str) -> None:
    body = json.dumps(GOOD).encode()

    response = probe.post("/api/v1/probe/orders", body, content_type=content_type, headers=bearer)

    assert "application/json" in problem(response, 415)["detail"]


def test_a_body_over_a_mebibyte_is_413(post: Post) -> None:
    problem(post("/orders", b" " * (1024 * 1024 + 1)), 413)


@pytest.mark.parametrize("number", ["many", "%00"])
def test_a_query_parameter_of_the_wrong_kind_is_422(probe: Client, number: str) -> None:
    document = problem(probe.get(f"/api/v1/probe/open?number={number}"), 422)

    assert document["errors"][0]["field"] == "number"


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/nothing", "/api/v1/probe/orders/1", "/api/v1/probe/%00"])
def test_an_unknown_path_is_404(probe: Client, path: str) -> None:
    problem(probe.get(path), 404)


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "options"])
def test_an_unknown_method_is_405_and_names_those_that_are_known(probe: Client, method: str) -> None:
    response = getattr(probe, method)("/api/v1/probe/orders")

    problem(response, 405)
    assert response["Allow"] == "POST"


def test_the_projects_own_api_below_the_same_root_keeps_its_answers(probe: Client) -> None:
    response = probe.get("/api/v1/checks/")

    assert (response.status_code, response.json()) == (401, {"error": "missing api key"})
    assert "Cache-Control" not in response


def test_below_a_prefix_refusals_are_problem_documents_as_well(probe: Client, settings: Any) -> None:
    settings.ROOT_URLCONF = (path("yard/", include("tests.unit.api.probe_urls")),)

    assert problem(probe.get("/yard/api/v1/nothing"), 404)["detail"].endswith("see /yard/api/v1/docs")
    problem(probe.get("/yard/api/v1/probe/orders"), 405)
    assert probe.get("/api/v1/nothing")["Content-Type"].startswith("text/html")


def test_our_own_failure_says_nothing_outside_and_is_logged(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    response = post("/broken")

    problem(response, 500)
    assert "secret" not in response.content.decode()
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("broker", 503, "the broker does not answer"),
        *((what, 503, "the database does not answer") for what in ("database", "database's connection")),
        ("database's history", 503, "the database does not answer"),
        ("full", 503, "has no room for more work"),
        ("queue", 429, "queue default holds"),
        ("unsafe", 503, "until it is safe again"),
    ],
)
def test_what_does_not_answer_or_is_full_says_so_and_when_to_come_back(
    post: Post, what: str, status: int, said: str
) -> None:
    response = post(f"/unavailable/{what}")

    assert said in problem(response, status)["detail"]
    assert int(response["Retry-After"]) > 0
    assert "allkeys" not in response.content.decode(), "settings of the broker"


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("large", 413, "larger than 1048576 bytes"),
        ("infinite", 422, "is inf, which JSON does not have"),
        ("unfit", 422, "argument due expects datetime.date; this str does not fit"),
    ],
)
def test_a_value_that_no_queue_carries_is_refused_without_a_place_in_the_code(
    post: Post, what: str, status: int, said: str
) -> None:
    detail = problem(post(f"/enqueued/{what}", {}), status)["detail"]

    assert said in detail
    assert ".py" not in detail


def test_many_bad_texts_far_down_are_refused_by_the_first_ones_in_short() -> None:
    body: Any = ["\0"] * 100_000
    for _ in range(60):
        body = {"n" * 100: body}

    with pytest.raises(Problem) as refused:
        refuse_bad_text(body)

    errors = refused.value.errors
    assert len(errors) == MAX_ERRORS
    assert all(len(error.field) < 500 for error in errors)


@pytest.fixture
def document(probe: Client) -> dict[str, Any]:
    return probe.get("/api/v1/openapi.json").json()


def operation(document: dict[str, Any], path: str, method: str = "post") -> dict[str, Any]:
    return document["paths"][f"/api/v1/probe{path}"][method]


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    refusals = [
        response
        for operations in document["paths"].values()
        for details in operations.values()
        for status, response in details["responses"].items()
        if int(status) >= 400
    ]

    assert refusals
    reference = {"$ref": "#/components/schemas/Problem"}
    assert all(refusal["content"] == {"application/problem+json": {"schema": reference}} for refusal in refusals)


def test_an_operation_names_the_scope_it_needs(document: dict[str, Any]) -> None:
    assert operation(document, "/orders")["security"] == [{"BearerToken": ["submit"]}]
    assert operation(document, "/all", "get")["security"] == [{"BearerToken": ["operate"]}]
    assert "security" not in operation(document, "/open", "get")
    assert document["components"]["securitySchemes"]["BearerToken"]["scheme"] == "bearer"


def test_a_post_with_a_token_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    def headers(details: dict[str, Any]) -> list[str]:
        return [parameter["name"] for parameter in details["parameters"] if parameter["in"] == "header"]

    assert headers(operation(document, "/orders")) == ["Idempotency-Key"]
    assert headers(operation(document, "/signed")) == []
    assert headers(operation(document, "/mine", "get")) == []


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/orders", "post", {201, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503}),
        ("/mine", "get", {200, 401, 403, 429, 500, 503}),
        ("/open", "get", {200, 422, 500, 503}),
        ("/fail/{status}", "post", {200, 400, 401, 403, 404, 409, 422, 429, 500, 503}),
    ],
)
def test_an_operation_lists_every_status(document: dict[str, Any], path: str, method: str, statuses: set[int]) -> None:
    assert {int(status) for status in operation(document, path, method)["responses"]} == statuses


JOB = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("debug", "is_given", "start"),
    [
        (True, True, "https://yard.example.com/"),
        (False, True, "https://yard.example.com/"),
        (False, False, "https://yard.example.com/"),
        (True, False, "http://localhost:666/"),
    ],
)
def test_a_public_url_is_used_where_it_is_set(settings: Any, debug: bool, is_given: bool, start: str) -> None:
    url = "https://yard.example.com"
    known = replace(switchyard_settings(), public_url=url, debug=debug, has_public_url=is_given)
    settings.SWITCHYARD = known

    assert job_url(RequestFactory().get("/", HTTP_HOST="localhost:666"), JOB).startswith(start)


def test_the_variable_counts_as_set_and_the_default_does_not() -> None:
    given = {"SWITCHYARD_PUBLIC_URL": "https://yard.example.com"}

    assert read({}, given, debug=True).has_public_url
    assert not read({}, {}, debug=True).has_public_url
