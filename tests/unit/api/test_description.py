"""The OpenAPI document says how to authenticate, what is refused, and how to repeat a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client, RequestFactory

from switchyard.api.responses import job_url
from switchyard.conf import read, switchyard_settings


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
