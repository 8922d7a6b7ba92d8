"""Each room of the core begins with a page: what it keeps true, its files in reading order, what is public."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.unit.documentation.pages import ROOT

LIBRARY = ROOT / "switchyard"
ROOMS = (
    *("actors", "alerts", "api", "audit", "broker", "bulk", "dead_letters", "frame", "history", "jobs", "middleware"),
    *("operations", "queues", "schedules", "tasks", "testing", "workers"),
)
ORDER = re.compile(r"Files in reading order: (.+?)(?=\n\n|\.\s+Public|\Z)", re.DOTALL)
PAGES = {
    file.parent.relative_to(LIBRARY).as_posix(): page
    for file in [LIBRARY / "middleware" / "__init__.py", *LIBRARY.rglob("__init__.py")]
    if ORDER.search(page := ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
}


def names_below(folder: Path) -> set[str]:
    """Return the modules and packages of a room, and those of its packages."""
    return {path.stem for path in [*folder.glob("*"), *folder.glob("*/*")] if path.is_dir() or path.suffix == ".py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_begins_with_its_page(room: str) -> None:
    assert "keeps true" in PAGES[room]
    assert "Public" in PAGES[room]


@pytest.mark.parametrize("room", PAGES)
def test_a_file_that_a_page_names_is_there(room: str) -> None:
    [order] = ORDER.findall(PAGES[room])
    named = set(re.findall(r"``(\w+)``", order))

    assert named - names_below(LIBRARY / room) == set()
