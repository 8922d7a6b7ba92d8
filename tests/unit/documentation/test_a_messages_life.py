"""The page "A message's life": every file and function that it names is there, and the way is as long as it says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.documentation.message_walk import PAGE, STEPS, Step, counted, files


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


# Actors are thin on purpose: they call a service, nothing else.
@pytest.mark.parametrize("path", sorted(p for p in files() if p.suffix == ".py" and p.name != "actors.py"), ids=str)
def test_no_file_of_the_way_only_forwards(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert not functions or any(not forwards(function) for function in functions)


def forwards(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function only calls another one."""
    body = [node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr):
        return False
    value = body[0].value.value if isinstance(body[0].value, ast.Await) else body[0].value
    return isinstance(value, ast.Call) and all(isinstance(argument, ast.Name) for argument in value.args)


def test_every_include_of_a_script_is_on_the_page() -> None:
    scripts = [step.path for step in STEPS if step.path.suffix == ".lua"]
    included = {
        script.parents[1 if script.parent.name == "queue" else 0] / "include" / f"{name}.lua"
        for script in scripts
        for name in re.findall(r"^--@include (\w+)$", script.read_text(), flags=re.MULTILINE)
    }

    assert included - files() == set()


def test_the_page_says_how_many_files_the_way_has() -> None:
    main, whole = counted()

    assert f"**{main} files** for enqueue, fetch, run, end and status" in PAGE
    assert f"**{whole} files** with retry, dead letter, alert and replay" in PAGE
