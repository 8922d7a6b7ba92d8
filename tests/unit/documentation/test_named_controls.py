"""Names in italics on how-to pages are pages of the menu, or buttons or labels of templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from switchyard.frame.navigation import ROOM
from tests.unit.documentation.pages import ROOT, name_of

PAGES = [*sorted((ROOT / "docs" / "how-to").glob("*.md")), ROOT / "docs" / "reference" / "operations-room.md"]
CODE = re.compile(r"^( *)```.*?^\1```|`[^`]*`", flags=re.MULTILINE | re.DOTALL)
# A name begins with a capital letter or a number; emphasis does not.
NAMED = re.compile(r"(?<![*\w])\*([A-Z0-9…][^*]*)\*(?![*\w])")
MENU = {*(page.title for page in ROOM), "Operations room"}
HIDDEN = re.compile(r'<span class="sy-hidden">.*?</span>', flags=re.DOTALL)
TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\$\{.*?\}", flags=re.DOTALL)
VALUE = re.compile(r"\{\{.*?\}\}", flags=re.DOTALL)
ANYTHING = "\0"


def names_of(text: str) -> Iterator[str]:
    """Yield the names that a page writes in italics; *Operations room › Jobs* is two."""
    for found in NAMED.findall(CODE.sub("", text)):
        yield from (" ".join(name.split()) for name in found.split("›"))


@cache
def shown() -> list[re.Pattern[str]]:
    """Return a pattern for each text between tags of the templates, and for each text of the scripts and views."""
    texts = set()
    for file in (ROOT / "switchyard").rglob("*.*"):
        if file.suffix == ".html":
            plain = HIDDEN.sub("", file.read_text(encoding="utf-8"))
            texts |= set(re.split(r"<[^>]*>", TEMPLATE.sub(ANYTHING, plain)))
            texts |= set(re.split(r"<[^>]*>|\{%.*?%\}", VALUE.sub(ANYTHING, plain)))  # each branch of an if by itself
            texts |= set(re.findall(r'default:"([^"]+)"', plain))
        elif file.suffix in (".js", ".py") and "migrations" not in file.parts:
            texts |= set(re.findall(r'"([^"\n]+)"', file.read_text(encoding="utf-8")))
            texts |= set(re.findall(r"`([^`\n]+)`", TEMPLATE.sub(ANYTHING, file.read_text(encoding="utf-8"))))
    kept = {re.sub(r" \(.*\)$", "", " ".join(text.split())) for text in texts if len(re.findall("[A-Za-z]", text)) >= 4}
    return [re.compile(re.escape(text).replace(re.escape(ANYTHING), ".*")) for text in kept]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_in_italics_is_on_a_page(page: Path) -> None:
    for name in names_of(page.read_text(encoding="utf-8")):
        assert name in MENU or any(text.fullmatch(name) for text in shown()), f"no page of the room shows {name!r}"
