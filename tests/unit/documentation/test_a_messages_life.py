"""The page "A message's life": every file and function that it names is there, and the way is as long as it says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.documentation.message_walk import STEPS, Step, files


@cache
def defined(path: Path) -> frozenset[str]:
    """Return the functions, classes, methods and constants of a module, methods as ``Class.method``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(found)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_named_file_and_its_functions_are_there(step: Step) -> None:
    assert step.path.is_file()
    if step.path.suffix == ".py":
        assert step.names, "name the function to read"
        assert set(step.names) - defined(step.path) == set()


def test_every_include_of_a_script_is_on_the_page() -> None:
    scripts = [step.path for step in STEPS if step.path.suffix == ".lua"]
    included = {
        script.parents[1 if script.parent.name == "queue" else 0] / "include" / f"{name}.lua"
        for script in scripts
        for name in re.findall(r"^--@include (\w+)$", script.read_text(), flags=re.MULTILINE)
    }

    assert included - files() == set()
