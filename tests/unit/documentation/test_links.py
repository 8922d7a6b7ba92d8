"""Links inside the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.documentation.pages import PAGES, ROOT, anchors, name_of

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_within_the_repository_resolves(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if path == "" else (page.parent / path).resolve()
        assert file.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name_of(page)}: no heading {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [(ROOT / "README.md").resolve()]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8")))
        ahead += [(page.parent / path).resolve() for path in targets if path and not re.match(r"[a-z]+:", path)]

    assert {name_of(page) for page in PAGES} - {name_of(page) for page in seen} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_splits_no_table_names_files_that_exist_and_installs_no_other_switchyard(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:switchyard|middleware|project|apps|devtools)/[\w/]+\.\w+)`", text)

    assert re.findall(r"^\|.*\|\n\n+(\|.*\|)\n(?!\| ?:?-)", text, re.MULTILINE) == []
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert re.findall(r"pip install ['\"]?switchyard.*", text) == []
