"""No text that is exported can be taken for a formula, and nothing else is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.product.exports.cells import MAX_CHARACTERS, TRIGGERS, safe_text


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x", "  =1",
        "\u00a0=1", "\ufeff=1",
        "\u200b@x", "\x00=1", "=cmd|' /C calc'!A0", " \u2007\u3000＝1", " " * 5000 + "=1",
    ],
)  # fmt: skip
def test_a_formula_gets_a_quote_in_front(text):
    assert safe_text(text) == "'" + text


@pytest.mark.parametrize("text", ["", "Ada", "a=b", "1-2", "'=1", "O'Neill", "Łódź", "  Ada", "日本", "100 %"])
def test_other_text_stays_as_it_is(text):
    assert safe_text(text) == text


@given(st.text())
def test_no_text_starts_with_a_trigger_and_only_a_quote_is_added(text):
    safe = safe_text(text)

    assert safe[:1] not in TRIGGERS or safe == ""
    assert safe in (text, "'" + text)


def test_text_is_cut_at_what_a_cell_can_hold():
    cut = safe_text("=" + "x" * 40_000)

    assert len(cut) == MAX_CHARACTERS
    assert cut.startswith("'=x")
    assert cut.endswith("x…")
