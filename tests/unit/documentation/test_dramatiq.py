"""The page of Dramatiq's names is complete: it is compared with Dramatiq's own modules."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest
from dramatiq import middleware
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware.prometheus import Prometheus
from dramatiq.rate_limits.backends import StubBackend as LimitsBackend
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend as ResultsBackend

from switchyard.broker.interface import facilities
from switchyard.wiring import in_order
from tests.unit.documentation.pages import read

PAGE = read("docs/reference/dramatiq.md")
ROOT = Path(dramatiq.__file__).parent
# Classes whose methods people call; those of others are for brokers and middleware.
USED = ("Actor", "Barrier", "Message", "RateLimiter", "ResultBackend", "group", "pipeline")
OPTIONS = "Options of actors and messages"
MODULES = "Modules without names of their own for actors"
MADE: list[middleware.Middleware] = [
    *(made() for made in middleware.default_middleware),
    *(middleware.AsyncIO(), middleware.CurrentMessage(), middleware.GroupCallbacks(LimitsBackend()), Prometheus()),
    Results(backend=ResultsBackend()),
]


def sections() -> dict[str, dict[str, tuple[str, str]]]:
    """Return the names of each section, of its rows and its list: name -> what happens here, and the difference."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for part in PAGE.split("\n## ")[1:]:
        heading = part.partition("\n")[0].strip("`").partition("`")[0]
        rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*) \| ?([^|]*) ?\|$", part, re.MULTILINE)
        found[heading] = {
            name: (here.strip(), difference.strip())
            for names, here, difference in rows
            for name in re.findall(r"`([^`]+)`", names)
        }
        for names in re.findall(r"^Same: (.+)\.$", part, re.MULTILINE):
            found[heading] |= dict.fromkeys(re.findall(r"`([^`]+)`", names), ("same", ""))
    return found


SECTIONS = sections()


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the dotted name of each of Dramatiq's modules, with its syntax tree; not all can be imported."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def public_names(tree: ast.Module) -> set[str]:
    """Return the names that a module offers: its classes and functions, and what ``__all__`` lists."""
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names |= set(ast.literal_eval(node.value))
    return {name for name in names if not name.startswith("_")}


def section_of(module: str) -> str:
    """Return the heading under which a module's names stand: its own, or that of the package around it."""
    while module not in SECTIONS:
        module = module.rpartition(".")[0]
    return module


NAMED = [(name, tree) for name, tree in modules() if name not in SECTIONS[MODULES]]


@pytest.mark.parametrize(("module", "tree"), NAMED, ids=[name for name, _ in NAMED])
def test_every_public_name_of_a_module_has_a_row(module: str, tree: ast.Module) -> None:
    expected = public_names(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in USED:
            methods = (method.name for method in node.body if isinstance(method, ast.FunctionDef))
            expected |= {f"{node.name}.{method}" for method in methods if not method.startswith("_")}

    assert expected - SECTIONS[section_of(module)].keys() == set()


def test_every_option_of_an_actor_has_a_row_and_works_here() -> None:
    of_middleware = {option for made in MADE for option in made.actor_options}
    of_decorator = inspect.signature(dramatiq.actor).parameters.keys() - {"options"}
    broker = StubBroker(middleware=in_order(facilities()))

    assert (of_middleware | of_decorator) - SECTIONS[OPTIONS].keys() == set()
    assert of_middleware - broker.actor_options == {"pipe_target"}, "Dramatiq ignores it, as an actor's"


def test_every_option_of_a_middleware_has_a_row() -> None:
    rows = SECTIONS["dramatiq.middleware"].keys() | SECTIONS["dramatiq.results"].keys()
    expected = {
        f"{type(made).__name__}({option}=)" for made in MADE for option in inspect.signature(type(made)).parameters
    }

    assert {type(made) for made in MADE} == set(subclasses(middleware.Middleware))
    assert expected - rows == set()


def test_every_row_is_a_name_of_dramatiq_and_says_how_it_differs() -> None:
    known: set[str] = {name for name, _ in modules()}
    for _, tree in modules():
        known |= public_names(tree) | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                known |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}

    rows = {name: row for section in SECTIONS.values() for name, row in section.items()}
    of_modules = {name for heading, section in SECTIONS.items() if heading != OPTIONS for name in section}
    assert {re.sub(r"\(.*", "", name) for name in of_modules} - known == set()
    assert {here for here, _ in rows.values()} == {"same", "safer", "not ours"}
    assert [name for name, (here, difference) in rows.items() if here != "same" and not difference] == []


def subclasses(base: type) -> Iterator[type]:
    """Yield Dramatiq's own public middleware."""
    for each in base.__subclasses__():
        if each.__module__.startswith("dramatiq.") and not each.__name__.startswith("_"):
            yield each
            yield from subclasses(each)
