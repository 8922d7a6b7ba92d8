"""The page of verdicts: its situations are those that the tests make."""

from __future__ import annotations

import re

import pytest

from tests.unit.documentation.pages import read
from tests.verdicts.situations import SITUATIONS, Situation

PAGE = read("docs/reference/verdicts.md")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of a section's table."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_situation_that_is_made() -> None:
    assert [row[0] for row in rows("Situations")] == [situation.title for situation in SITUATIONS]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.title)
def test_a_situation_is_said_as_the_page_says(situation: Situation) -> None:
    [row] = [row for row in rows("Situations") if row[0] == situation.title]

    assert re.search(situation.sentence, row[1])
    assert float(row[2]) == situation.within_s
