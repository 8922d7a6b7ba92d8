"""The glossary and the names in the code: a term has one entry and is used, a key's name is explained."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from switchyard.broker.keys.keys import Keys
from switchyard.broker.keys.queue_keys import ALL_LANES, QueueKeys
from tests.unit.documentation.pages import ROOT, read

PAGE = read("docs/reference/glossary.md")
LIBRARY = ("middleware", "switchyard")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Django calls these classes so, in every app.
DJANGO = {"Command"}


def section(heading: str) -> str:
    """Return what stands below a heading."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> list[tuple[str, str]]:
    """Return the first two cells of each row of a section's table."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section(heading), flags=re.MULTILINE)
    return [row for row in found if not row[0].startswith(("---", "term", "name"))]


def words_of(name: str) -> set[str]:
    """Return the words of a name in snake, kebab or camel case."""
    return {word.lower() for word in WORD.findall(name)}


TERMS = [term.strip() for cell, _ in rows("Terms") for term in cell.split(",")]
TERM_WORDS = {word for term in TERMS for word in words_of(term)}
ON_THE_SERVER = dict(rows("Names on the server"))


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


def test_every_name_of_a_key_is_a_term_or_explained() -> None:
    terms = TERM_WORDS | {f"{word}s" for word in TERM_WORDS}
    missing = {name for name in key_names() if not words_of(name) <= terms and name not in ON_THE_SERVER}

    assert missing == set(), 'explain it under "Names on the server"'
    assert set(ON_THE_SERVER) <= key_names()


def test_no_two_public_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for path in sources()
        if path.suffix == ".py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert {name for name, count in classes.items() if count > 1} - DJANGO - set(MIRRORED) == set()


# A row of the database, and what it mirrors.
MIRRORED = ("DeadLetter",)


def key_names() -> set[str]:
    """Return what stands in keys beside the names of queues, jobs, locks and the like."""
    return {part for key in (*queue_keys(), *shared_keys()) for part in re.split(r"[:.]", key) if part.isalpha()}


def queue_keys() -> Iterator[str]:
    """Return the part of every key of a queue family that is not the queue's name."""
    keys = QueueKeys("", "7")
    for key in keys.all_keys():
        yield key.replace("7", "").replace("-", ".")
    for lane in ALL_LANES:
        yield keys.parked(lane).replace("7", "").replace("-", ".")
    yield keys.hold("7")
    yield from keys.aside("7")


def shared_keys() -> Iterator[str]:
    """Return every other key, its names replaced by figures."""
    keys = Keys("")
    assert is_dataclass(keys)
    assert {field.name for field in fields(keys)} == {"prefix", "slot_groups"}
    for name in (
        name for name in dir(Keys) if not name.startswith("_") and name not in ("prefix", "slot_groups", "queue")
    ):
        found = getattr(keys, name)
        if callable(found):
            count = found.__code__.co_argcount - 1
            found = found(*["7"] * count)
        yield re.sub(r"\{(\w+)\}", r"\1", found)
