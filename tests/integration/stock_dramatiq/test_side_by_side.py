"""A project written against stock Dramatiq does the same here, with the whole stack, as under stock Dramatiq."""

import ast
import importlib
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker as StockBroker
from dramatiq.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Middleware, Retries, default_middleware
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as ResultBackend
from dramatiq.results.backends import StubBackend

from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

PROJECT = "tests.integration.stock_dramatiq.project"
QUEUES = ("default", "mail")
RETRIES = 4  # without a number of their own; a few, so that some actor can have more
MODULES = ("options", "kinds", "compositions")


def test_every_case_has_the_same_result_under_both(valkey, valkey_url, yard_broker, run_worker, monkeypatch):
    monkeypatch.setenv("REDIS_URL", valkey_url)

    def stock(own: list[Middleware]) -> Broker:
        listed = [*(made() for made in default_middleware if made is not Retries), Retries(max_retries=RETRIES)]
        namespace = f"stock-{uuid.uuid4().hex[:8]}"
        results = Results(backend=ResultBackend(client=valkey, namespace=f"{namespace}-results"))
        callbacks = GroupCallbacks(RateLimiterBackend(client=valkey))
        listed += [CurrentMessage(), AsyncIO(), callbacks, results, *own]
        return StockBroker(client=valkey, namespace=namespace, middleware=listed)

    def ours(own: list[Middleware]) -> Broker:
        return yard_broker(yard(), extra=own)

    of_stock, of_ours = results(stock, run_worker), results(ours, run_worker)

    assert of_ours == of_stock
    assert len(of_stock) > 15
    assert [name for name, result in of_stock.items() if not result] == []
    assert of_stock["shutdown"] == ["started", "Shutdown", "started"], "the worker was stopped while it ran"


def test_the_project_knows_dramatiq_alone_and_uses_every_option_of_its_middleware():
    trees = [ast.parse(path.read_text()) for path in (Path(__file__).parent / "project").glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    sources = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    sources |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    used = {node.arg for node in nodes if isinstance(node, ast.keyword)}
    used |= {node.value for node in nodes if isinstance(node, ast.Constant)}  # of a dict of options
    made: list[Middleware] = [*(each() for each in default_middleware), Results(backend=StubBackend())]

    assert {source.partition(".")[0] for source in sources} - sys.stdlib_module_names == {"dramatiq"}
    assert {option for each in made for option in each.actor_options} - used == {"pipe_target"}, "Dramatiq ignores it"


def yard() -> Yard:
    """Return a yard with the project's queues; its retries are those of the stock broker."""
    return Yard(
        queues=tuple(Queue(name, 60_000, 30_000, 60_000, retry=RetryPolicy(max_retries=RETRIES)) for name in QUEUES),
        pools=(
            Pool("work", "threads", QUEUES, processes=1, slots=8),
            Pool("retries", "threads", (), processes=1, slots=8, shared_retries=True),
        ),
    )


def results(build: Callable[[list[Middleware]], Broker], run_worker: Any) -> dict[str, Any]:
    """Import the project under a new broker, send its cases, work until none is left, and return what came of them."""
    forget_project()
    broker = build([imported("journal").Audit()])
    with the_global_broker(broker):
        modules = {name: imported(name) for name in MODULES}
        journal = imported("journal")
        found = {name: send() for name, send in journal.CASES.items()}
        with run_worker(broker=broker, threads=8):
            finish(broker)
        modules["options"].interruptible.send()
        with run_worker(broker=broker, threads=8):
            wait_for(lambda: journal.count("notify_shutdown"))
        with run_worker(broker=broker, threads=8):
            finish(broker)
        return {name: read() for name, read in found.items()} | {"shutdown": journal.of("notify_shutdown")}


def finish(broker: Broker) -> None:
    """Wait until all queues are empty; what follows a message may be in another queue."""
    for name in QUEUES * 2:
        broker.join(name, timeout=30_000)


def imported(name: str) -> ModuleType:
    """Import a module of the project; its actors are declared with the global broker."""
    return importlib.import_module(f"{PROJECT}.{name}")


def forget_project() -> None:
    """Make the next import of the project's modules declare its actors anew."""
    for name in [name for name in sys.modules if name.startswith(PROJECT)]:
        del sys.modules[name]
