"""No text that is exported can be taken for a formula, and nothing else is changed."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.console.cells import MAX_CHARACTERS, TRIGGERS, safe_text


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
