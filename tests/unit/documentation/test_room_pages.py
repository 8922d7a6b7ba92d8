"""Each room of the core begins with a page: what it keeps true, its files in reading order, what is public."""

from __future__ import annotations

import ast
import re

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


@pytest.mark.parametrize("room", sorted({*ROOMS, *PAGES}))
def test_a_room_begins_with_its_page_whose_files_are_there(room: str) -> None:
    [order] = ORDER.findall(PAGES[room])
    below = [path for pattern in ("*", "*/*") for path in (LIBRARY / room).glob(pattern)]
    names = {path.stem for path in below if path.is_dir() or path.suffix == ".py"}

    assert set(re.findall(r"``(\w+)``", order)) - names == set()
    if room in ROOMS:
        assert "keeps true" in PAGES[room] and "Public" in PAGES[room]
