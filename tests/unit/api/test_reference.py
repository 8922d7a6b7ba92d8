"""The API's page: every operation as text, fields with their types."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from project.urls import api
from switchyard.api.reference import Reference, marked_up

DOCUMENT = {
    "paths": {
        "/things/{id}": {
            "post": {
                "operationId": "change_thing",
                "summary": "Change Thing",
                "tags": ["Things"],
                "security": [{"BearerToken": ["submit"]}, {"BearerToken": ["operate"]}],
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                "responses": {"202": {"description": "Accepted"}, "404": {"description": "Not found"}},
            }
        }
    },
    "components": {
        "schemas": {
            "Thing": {
                "required": ["kind", "size"],
                "properties": {
                    "kind": {"enum": ["small", "large"]},
                    "size": {"type": "integer", "minimum": 1, "maximum": 2000, "description": "In mm."},
                    "inner": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]},
                    "names": {"type": "array", "items": {"type": "string", "maxLength": 5}},
                },
            },
            "Inner": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}},
        }
    },
}


def test_fields_have_their_types_in_words_and_those_of_objects_follow() -> None:
    (section,) = Reference(DOCUMENT).sections()
    (operation,) = section.operations

    found = [(entry.name, entry.type, entry.required) for entry in operation.bodies[0].fields]

    assert found == [
        ("kind", 'one of "small", "large"', True),
        ("size", "integer, 1 to 2,000", True),
        ("inner", "object or null", False),
        ("inner.at", "date-time", False),
        ("names", "list of string, at most 5 characters", False),
    ]


def test_operation_names_scopes_refusals_and_a_request_to_copy() -> None:
    (operation,) = Reference(DOCUMENT).sections()[0].operations

    assert operation.scopes == ("submit", "operate")
    assert [answer.status for answer in operation.refusals] == ["404"]
    assert operation.example.splitlines() == [
        'curl -X POST "$SITE/things/{id}" \\',
        '  -H "Authorization: Bearer $TOKEN" \\',
        '  -H "Content-Type: application/json" \\',
        """  -d '{"kind": "small", "size": 1}'""",
    ]


def test_descriptions_have_code_and_links_and_nothing_else_of_theirs_is_markup() -> None:
    text = "Send `a<b` to <b>us</b>, see [the rules](https://rules.example/) or [not](javascript:x)."

    assert marked_up(text) == (
        'Send <code class="sy-code">a&lt;b</code> to &lt;b&gt;us&lt;/b&gt;, see '
        '<a class="sy-link" href="https://rules.example/">the rules</a> or [not](javascript:x).'
    )


@pytest.mark.django_db
def test_page_has_every_operation_without_a_script_of_its_own() -> None:
    page = Client().get("/api/v1/docs").content.decode()

    document = api.get_openapi_schema()
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in page
    assert re.findall(r"<script[^>]*>[^<]", page) == []
