"""Lists as files: CSV and JSON of any rows, cut where there are too many, with no cell that a table would calculate."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from switchyard.broker.errors import ActRefused
from switchyard.console import export
from switchyard.console.export import export_of

ROWS: list[dict[str, Any]] = [
    {"id": 1, "tags": ["a", "b"], "error": None},
    {"id": -2, "tags": [], "error": "=1+1", "more": True},
]


def exported(given: str, rows: Callable[[], Iterable[dict[str, Any]]] = lambda: ROWS) -> HttpResponse | None:
    return export_of(RequestFactory().get(f"/jobs/?actor=x&export={given}"), "jobs", rows)


def test_csv_has_every_column_and_no_formula() -> None:
    answer = exported("csv")

    assert answer is not None and answer["Content-Disposition"].startswith('attachment; filename="jobs-20')
    first, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert first == ["id", "tags", "error", "more"]
    assert rows == [["1", '["a", "b"]', "", ""], ["-2", "[]", "'=1+1", "true"]]


@pytest.mark.parametrize("text", ["x;=1+1", " =1+1", "\uff1d1+1", "\n=1+1", "\u200b@x"])
def test_no_cell_is_a_formula_where_a_comma_is_the_decimal_sign(text: str) -> None:
    answer = exported("csv", lambda: [{"error": text}])

    assert answer is not None
    cells = [cell for row in csv.reader(io.StringIO(answer.content.decode()), delimiter=";") for cell in row]
    assert [cell for cell in cells if cell.strip("\u200b ").startswith(("=", "@", "\uff1d"))] == []


def test_json_has_the_rows_as_they_are() -> None:
    answer = exported("json")

    assert answer is not None
    assert json.loads(answer.content) == {"jobs": ROWS, "cut": False}


@pytest.mark.parametrize("given", ["", "xml", "CSV"])
def test_every_other_address_shows_the_page(given: str) -> None:
    assert exported(given) is None


def test_a_long_list_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST", 1)
    answer = exported("json")

    assert answer is not None and "jobs-first-1-20" in answer["Content-Disposition"]
    assert json.loads(answer.content) == {"jobs": ROWS[:1], "cut": True}


def test_a_list_that_cannot_be_read_whole_is_no_file() -> None:
    def rows() -> Iterable[dict[str, Any]]:
        yield ROWS[0]
        raise ActRefused("export", "the broker does not answer")

    answer = exported("csv", rows)

    assert answer is not None and answer.status_code == 503 and "the broker does not answer" in answer.content.decode()
