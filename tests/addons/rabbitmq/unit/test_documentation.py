"""The page of the add-on lists its settings, checks, keys and the private names that it uses, and no others."""

from __future__ import annotations

import re

from docs.make_keys import rows, table
from switchyard.addons.rabbitmq import ADDON
from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from tests.unit.documentation.pages import ROOT, read

PAGE = read("docs/addons/rabbitmq.md")
SOURCES = {path: path.read_text() for path in (ROOT / "switchyard/addons/rabbitmq").glob("*.py")}


def test_its_settings_are_described() -> None:
    found = re.findall(r"^\| `(SWITCHYARD_\w+)` \|", PAGE, re.MULTILINE)

    assert set(found) == set(ADDON.settings.values())


def test_its_checks_are_described() -> None:
    known = {found for text in SOURCES.values() for found in re.findall(r"switchyard\.[EW]\d{3}", text)}

    assert set(re.findall(r"^\| `(switchyard\.[EW]\d{3})`", PAGE, re.MULTILINE)) == known


def test_its_keys_are_those_of_the_docstrings() -> None:
    assert table(list(rows(RabbitKeys("switchyard")))) in PAGE


def test_every_file_of_a_private_name_uses_one_of_its_names() -> None:
    found = re.findall(r"^\| pika \| (`.+?`) \| `(.+?)` \|", PAGE, re.MULTILINE)

    assert len(found) == 3
    for names, file in found:
        used = [name.rpartition(".")[2] for name in re.findall(r"`([^`]+)`", names)]
        assert any(name in SOURCES[ROOT / file] for name in used), file


def test_each_module_is_on_its_first_page() -> None:
    first = SOURCES[ROOT / "switchyard/addons/rabbitmq/__init__.py"]
    modules = {path.stem for path in SOURCES} - {"__init__"}

    assert modules - set(re.findall(r"``(\w+)``", first)) == set()
