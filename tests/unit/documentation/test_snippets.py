"""Code that the documentation shows works, names what is there; the page of Dramatiq's names is complete."""

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from dramatiq import middleware
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware.prometheus import Prometheus
from dramatiq.rate_limits.backends import StubBackend as LimitsBackend
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend as ResultsBackend
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from apps.billing import signatures
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.wiring import in_order
from switchyard.workers.checks import check_yard
from tests.unit.documentation.message_walk import STEPS, files
from tests.unit.documentation.pages import PAGES, code_blocks, name_of, read


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_of_every_page_can_be_parsed(page):
    for code in code_blocks(page.read_text(encoding="utf-8"), "python"):
        lines = [line for line in code.splitlines() if line.strip() != "..."]
        if lines[-1].startswith("@"):
            lines += ["def actor(): ..."]  # a decorator shown alone
        ast.parse("\n".join(lines))


def test_signature_as_the_guide_makes_it_is_accepted():
    [code] = code_blocks(read("docs/how-to/sign-payment-events.md"), "python")
    shown: dict[str, Any] = {}
    exec(compile(code, "sign-payment-events.md", "exec"), shown)
    secret = "a shared secret of 32 characters"

    body, headers = shown["signed"](secret, "event-1", {"type": "payment.received"})

    assert signatures.verify(secret, headers, body) == "event-1"


[PROXY_NETWORKS] = re.findall(r"FORWARDED_ALLOW_IPS:-([^}]+)\}", read("ops/compose.yaml"))
GATEWAY, CLIENT, CLAIMED = "172.18.0.1", "192.168.1.5", "203.0.113.7"


def address(forwarded: str, trusted: str) -> str:
    """Return the address that the web takes for the client's."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    seen: list[str] = []
    headers = [(b"x-forwarded-for", forwarded.encode())]
    scope: Any = {"type": "http", "scheme": "http", "client": (GATEWAY, 1), "headers": headers}
    asyncio.run(ProxyHeadersMiddleware(app, trusted)(scope, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("forwarded", "trusted", "taken"),
    [
        (CLIENT, PROXY_NETWORKS, CLIENT),
        (f"{CLAIMED}, {CLIENT}", PROXY_NETWORKS, CLAIMED),  # what the page warns of
        (f"{CLAIMED}, {CLIENT}", GATEWAY, CLIENT),
    ],
)
def test_the_address_of_a_client_in_a_trusted_network(forwarded, trusted, taken):
    assert address(forwarded, trusted) == taken


def test_pool_that_is_niced_and_pinned_fits_the_queue_of_its_page():
    declared, pinned = code_blocks(read("docs/how-to/add-a-queue-and-a-pool.md"), "python")
    shown: Pool = eval(pinned, {"Pool": Pool})
    own = settings.SWITCHYARD.topology
    names = {"Yard": Yard, "Queue": Queue, "Pool": Pool, "MINUTE": 60_000}
    exec(declared.replace("...,  # those that are there", "*QUEUES,").replace("...,", "*POOLS,"),
         names | {"QUEUES": own.queues, "POOLS": own.pools}, found := {})  # fmt: skip

    yard: Yard = found["YARD"]

    assert (check_yard(yard), check_yard(Yard(yard.queues, (*yard.pools[:-1], shown)))) == ([], [])
    assert (shown.nice, shown.cpus, replace(shown, nice=0, cpus=())) == (10, (2, 3), yard.pools[-1])


def test_yard_of_the_reference_fits_together():
    [code] = code_blocks(read("docs/reference/topology.md"), "python")
    exec(code, shown := {})

    assert check_yard(shown["YARD"]) == []


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
def test_a_named_file_and_its_functions_are_there(step):
    assert step.path.is_file()
    if step.path.suffix == ".py":
        assert step.names, "name the function to read"
        assert set(step.names) - defined(step.path) == set()


def test_every_include_of_a_script_is_on_the_page():
    scripts = [step.path for step in STEPS if step.path.suffix == ".lua"]
    included = {
        script.parents[1 if script.parent.name == "queue" else 0] / "include" / f"{name}.lua"
        for script in scripts
        for name in re.findall(r"^--@include (\w+)$", script.read_text(), flags=re.MULTILINE)
    }

    assert included - files() == set()


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
def test_every_public_name_of_a_module_has_a_row(module, tree):
    expected = public_names(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in USED:
            methods = (method.name for method in node.body if isinstance(method, ast.FunctionDef))
            expected |= {f"{node.name}.{method}" for method in methods if not method.startswith("_")}

    assert expected - SECTIONS[section_of(module)].keys() == set()


def test_every_option_of_an_actor_has_a_row_and_works_here():
    of_middleware = {option for made in MADE for option in made.actor_options}
    of_decorator = inspect.signature(dramatiq.actor).parameters.keys() - {"options"}
    broker = StubBroker(middleware=in_order(facilities()))

    assert (of_middleware | of_decorator) - SECTIONS[OPTIONS].keys() == set()
    assert of_middleware - broker.actor_options == {"pipe_target"}, "Dramatiq ignores it, as an actor's"


def test_every_option_of_a_middleware_has_a_row():
    rows = SECTIONS["dramatiq.middleware"].keys() | SECTIONS["dramatiq.results"].keys()
    expected = {
        f"{type(made).__name__}({option}=)" for made in MADE for option in inspect.signature(type(made)).parameters
    }

    assert {type(made) for made in MADE} == set(subclasses(middleware.Middleware))
    assert expected - rows == set()


def test_every_row_is_a_name_of_dramatiq_and_says_how_it_differs():
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
