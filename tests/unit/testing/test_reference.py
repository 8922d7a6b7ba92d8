"""The reference of the functions and fixtures for tests lists all of them, with their arguments."""

from __future__ import annotations

import ast
import inspect
import re

from switchyard import testing
from tests.unit.documentation.pages import ROOT, read

PAGE = read("docs/reference/testing.md")


def test_every_name_is_described_with_its_arguments() -> None:
    shown = dict(re.findall(r"^\| `(\w+)\(([^`]*)\)`", PAGE, re.MULTILINE))
    functions = {name: getattr(testing, name) for name in testing.__all__ if name[0].islower()}

    assert shown.keys() == functions.keys()
    assert [name for name in testing.__all__ if f"`{name}" not in PAGE] == []
    for name, function in functions.items():
        parameters = [
            each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_POSITIONAL
        ]
        written = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in parameters]
        by_name = [place for place, each in enumerate(parameters) if each.kind is each.KEYWORD_ONLY]
        if by_name:
            written.insert(by_name[0], "*")
        assert shown[name] == ", ".join(written)


def test_every_fixture_is_described() -> None:
    plugin = ast.parse((ROOT / "switchyard/pytest_plugin.py").read_text(encoding="utf-8"))
    functions = {node.name for node in plugin.body if isinstance(node, ast.FunctionDef)}

    fixtures = {name for name in functions if name.startswith("switchyard")}
    assert fixtures == {"switchyard_broker", "switchyard_eager", "switchyard_real_broker"}
    assert all(f"| `{name}` |" in PAGE for name in (*fixtures, "switchyard_in_memory"))
