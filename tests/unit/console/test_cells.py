"""Exported texts: none is taken for a formula, and files hold the rows as they are."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from switchyard.broker.errors import ActRefused
from switchyard.console import export
from switchyard.console.cells import MAX_CHARACTERS, TRIGGERS, safe_text
from switchyard.console.export import export_of


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-1", "@SUM(A1)", "\t1", "\r1", "\n1", " \t1", "＝1", "＋1", "－1", "＠x", "  =1",
        "\u00a0=1", "\ufeff=1",
        "\u200b@x", "\x00=1", "=cmd|' /C calc'!A0", " \u2007\u3000＝1", " " * 5000 + "=1",
    ],
)  # fmt: skip
def test_a_formula_gets_a_quote_in_front(text):
    assert safe_text(text) == "'" + text


@pytest.mark.parametrize(
    "text", ["", "Ada", "a=b", "1-2", "'=1", "O'Neill", "Łódź", "  Ada", "日本", "100 %", "a;b", "a; b\nc"]
)
def test_other_text_stays_as_it_is(text):
    assert safe_text(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a;=cmd|' /C calc'!A0;b", "a;'=cmd|' /C calc'!A0;b"),
        ("a; \u200b=1", "a;' \u200b=1"),
        ("a\n=1;\r\n@x", "a\n'=1;\r\n'@x"),
        ("\t=1", "'\t'=1"),
        ("=1;=1", "'=1;'=1"),
        (";+1", ";'+1"),
        ("a;\"=cmd|' /C calc'!A0;b", "a;'\"=cmd|' /C calc'!A0;b"),
        ('a; "" =1', 'a;\' "" =1'),
    ],
)
def test_text_that_is_parted_where_a_semicolon_parts_cells_has_no_formula_either(text, safe):
    assert safe_text(text) == safe


@given(st.text(alphabet=";=+a\"' "))
def test_a_reader_that_parts_at_semicolons_finds_no_formula(text):
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC).writerow(["INV-1", safe_text(text), 1])

    cells = next(csv.reader([line.getvalue()], delimiter=";"))
    assert [cell for cell in cells if cell.strip()[:1] in TRIGGERS and cell.strip()] == []


@given(st.text() | st.text(alphabet=";\t\r\n =+a'"))
def test_no_cell_starts_with_a_trigger_and_only_quotes_are_added(text):
    safe = safe_text(text)

    assert safe[:1] not in TRIGGERS or safe == ""
    cells = re.split(r"[;\t\r\n]", safe)
    assert [cell for cell in cells if cell.strip()[:1] in TRIGGERS and cell.strip()] == []
    assert safe.replace("'", "") == text.replace("'", "")


def test_text_is_cut_at_what_a_cell_can_hold():
    cut = safe_text("=" + "x" * 40_000)

    assert len(cut) == MAX_CHARACTERS
    assert cut.startswith("'=x")
    assert cut.endswith("x…")


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
