"""Code that the documentation shows is code that works, and names files and functions that are there."""

from __future__ import annotations

import ast
import asyncio
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from apps.billing import signatures
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.workers.checks import check_yard
from tests.unit.documentation.message_walk import STEPS, Step, files
from tests.unit.documentation.pages import PAGES, code_blocks, name_of, read


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_of_every_page_can_be_parsed(page: Path) -> None:
    for code in code_blocks(page.read_text(encoding="utf-8"), "python"):
        lines = [line for line in code.splitlines() if line.strip() != "..."]
        if lines[-1].startswith("@"):
            lines += ["def actor(): ..."]  # a decorator shown alone
        ast.parse("\n".join(lines))


def test_signature_as_the_guide_makes_it_is_accepted() -> None:
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
def test_the_address_of_a_client_in_a_trusted_network(forwarded: str, trusted: str, taken: str) -> None:
    assert address(forwarded, trusted) == taken


def test_pool_that_is_niced_and_pinned_fits_the_queue_of_its_page() -> None:
    declared, pinned = code_blocks(read("docs/how-to/add-a-queue-and-a-pool.md"), "python")
    shown: Pool = eval(pinned, {"Pool": Pool})
    own = settings.SWITCHYARD.topology
    names = {"Yard": Yard, "Queue": Queue, "Pool": Pool, "MINUTE": 60_000}
    exec(declared.replace("...,  # those that are there", "*QUEUES,").replace("...,", "*POOLS,"),
         names | {"QUEUES": own.queues, "POOLS": own.pools}, found := {})  # fmt: skip

    yard: Yard = found["YARD"]

    assert check_yard(yard) == []
    assert check_yard(Yard(yard.queues, (*yard.pools[:-1], shown))) == []
    assert (shown.nice, shown.cpus) == (10, (2, 3))
    assert replace(shown, nice=0, cpus=()) == yard.pools[-1]


def test_yard_of_the_reference_fits_together() -> None:
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
