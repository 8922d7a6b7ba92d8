"""The glossary and the names in the code: a term has one entry and is used, and a class has a name of its own."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.documentation.pages import ROOT, read

PAGE = read("docs/reference/glossary.md")
LIBRARY = ("middleware", "switchyard")
# Django calls these classes so, in every app.
DJANGO = {"Command"}


def terms() -> list[str]:
    """Return the terms of the page's table."""
    table = PAGE.split("\n## Terms\n")[1]
    cells = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, flags=re.MULTILINE)[2:]
    return [term.strip() for cell in cells for term in cell.split(",")]


TERMS = terms()


def sources() -> list[Path]:
    """Return every module and Lua file of the library."""
    found = [path for folder in LIBRARY for kind in ("*.py", "*.lua") for path in (ROOT / folder).rglob(kind)]
    return [path for path in found if "migrations" not in path.parts]


def test_terms_stand_once_and_in_order() -> None:
    assert [term for term, count in Counter(TERMS).items() if count > 1] == []
    assert sorted(TERMS, key=str.lower) == TERMS


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_used(term: str) -> None:
    pattern = re.compile(r"[\s_-]?".join(map(re.escape, re.split(r"[\s-]", term))), re.IGNORECASE)

    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in sources())


def test_no_two_public_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for path in sources()
        if path.suffix == ".py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert {name for name, count in classes.items() if count > 1} - DJANGO - set(MIRRORED) == set()


# A row of the database, or the permissions of what has no table, and what it mirrors.
MIRRORED = ("DeadLetter", "Job")
